"""Interlock: one door between whoever wants to change production and production itself."""

__version__ = "0.1.0"
