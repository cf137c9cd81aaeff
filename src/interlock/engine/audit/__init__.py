"""The audit log: chains, tree, checkpoints, receipts, export and verification."""
