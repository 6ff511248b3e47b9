"""Process managers: what keeps the processes of a plan running. PM2 where it is installed, supervisor elsewhere."""
