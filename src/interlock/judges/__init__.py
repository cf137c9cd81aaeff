"""Judges of rollouts that others drive: Argo Rollouts and Flagger ask, this room reads the metrics and judges."""
