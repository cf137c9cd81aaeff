"""Pure pieces that know nothing of Interlock."""
