"""The vocabulary of Interlock as frozen types and state machines; no I/O."""
