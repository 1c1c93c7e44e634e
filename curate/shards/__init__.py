"""Kept rows become training shards with an index, and come back as samples."""
