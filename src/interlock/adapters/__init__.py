"""One file for one outside system, each behind a Protocol of the core."""
