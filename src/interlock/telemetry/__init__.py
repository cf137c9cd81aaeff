"""How Interlock itself is doing: its metrics and its health."""
