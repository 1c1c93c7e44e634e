"""Bytes become numbers: one decode of each image feeds every scorer. Importing this package needs no torch."""
