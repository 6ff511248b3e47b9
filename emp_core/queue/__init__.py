"""Jobs in Redis: every change of state is one script."""
