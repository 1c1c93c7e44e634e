"""A policy, which is SQL over stored columns, becomes keep or drop with a reason for every row."""
