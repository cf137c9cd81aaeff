"""The guard: effects as processes that end with their lease, the whole tree of them."""
