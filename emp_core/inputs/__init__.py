"""Files that jobs refer to, fetched to this machine for as long as an attempt runs."""
