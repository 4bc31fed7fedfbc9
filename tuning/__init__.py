"""Measured search: recall and latency of an index, the cheapest setting that meets a target, and advice."""
