"""For those who write plugins: fixtures, fake services and conformance suites."""
