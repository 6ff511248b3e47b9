"""The shout service for emp-core."""
