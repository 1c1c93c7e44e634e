"""What is in a pool: SQL over its tables, the funnel, verification, digests, one row's history, the report."""
