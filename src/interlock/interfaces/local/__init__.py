"""The Unix socket between clients on this machine and the resident process."""
