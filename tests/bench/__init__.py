"""Measurements that print one JSON object as their last line; run as `python -m tests.bench.NAME`."""
