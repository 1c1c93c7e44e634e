"""Numbers become groups: which rows show the same picture, found without comparing all pairs."""

from curate.dedupe.pictures import DedupeReport, dedupe, output_tables
from curate.dedupe.settings import DedupeSettings

__all__ = ["DedupeReport", "DedupeSettings", "dedupe", "output_tables"]
