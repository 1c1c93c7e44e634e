"""Tests of the package that turns lists into rows."""
