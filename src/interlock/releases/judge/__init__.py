"""The judge: pure arithmetic that says of a candidate go, no-go, or not yet, and what it was that was seen."""
