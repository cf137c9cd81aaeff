"""The performance claims, each measured beside its peers in one run: `make bench`, or `python -m bench --quick`."""
