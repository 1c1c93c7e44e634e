"""Engines run phases over parts: on this machine, on Ray, on Spark. Nothing else in curate knows which."""
