"""Measures this queue and its peers side by side. ``python -m bench --help`` says how; docs/explanation/benchmarks.md, what."""
