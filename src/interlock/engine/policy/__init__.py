"""Policy: what is allowed, who says so, and why."""
