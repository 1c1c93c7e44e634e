"""A URL becomes image bytes or a reason: guarded, polite, bounded, and at the speed of the codec."""
