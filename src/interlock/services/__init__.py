"""What runs versions of services: laid out, built, started beside each other, probed, stopped."""
