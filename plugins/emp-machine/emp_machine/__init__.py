"""The machine layer: plans what a machine runs, installs it, starts it, and watches it until told to stop."""
