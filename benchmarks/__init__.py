"""Measurements: each module prints its figures with the machine, the versions and the commit."""
