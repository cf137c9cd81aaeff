"""Schedules: asks that the clock makes, by cron or once, each instant one time."""
