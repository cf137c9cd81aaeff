"""Commands as typed operations: what may be executed, and what each known form of it does."""
