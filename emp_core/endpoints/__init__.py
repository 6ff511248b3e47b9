"""Several servers of one service: which there are, how they are, which of them gets the next job."""
