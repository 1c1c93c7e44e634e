"""Rows leave a pool: takedown (nothing of them may stay or come back) and purge (their bytes are not worth the space)."""
