"""Governing the door itself: freezes, pauses, holds, and taking a Run back."""
