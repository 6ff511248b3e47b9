"""What tests of installers need: repositories, a file server and packages of this machine."""
