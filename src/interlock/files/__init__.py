"""Files: written whole or not at all, never through a link, and put back when asked."""
