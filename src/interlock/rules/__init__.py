"""Which policies are in force: put there by a Run that was planned, approved and can be taken back."""
