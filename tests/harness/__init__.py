"""Builds a whole engine for tests: real database, real policies, real processes, and Actions made for being tested."""
