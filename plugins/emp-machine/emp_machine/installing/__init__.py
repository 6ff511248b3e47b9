"""Installing the services of a plan, one after the other, from wherever the last time ended."""
