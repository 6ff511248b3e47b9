"""Plugins: installed distributions that bring services, connectors, stores and commands."""
