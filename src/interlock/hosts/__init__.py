"""`host.add` and `host.remove`: other machines, and what their own small doors allow."""
