"""The worker: claims jobs, runs them through connectors, and records what came out."""
