"""What is wrong with this machine and this installation, and the command that mends it."""
