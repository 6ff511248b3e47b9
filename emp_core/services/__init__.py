"""Which service runs where: the service mapping, and what WORKERS makes of it."""
