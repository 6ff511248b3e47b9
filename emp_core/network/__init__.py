"""Where addresses from outside may lead: not into the private network, unless the operator says so."""
