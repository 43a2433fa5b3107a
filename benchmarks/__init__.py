"""Benchmarks: each one command that prints its set-up, the peer and Uptier in the same run."""
