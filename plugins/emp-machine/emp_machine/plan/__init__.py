"""What a machine is to run, decided by one pure function before anything is done."""
