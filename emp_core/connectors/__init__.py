"""The contract between a worker and a service."""
