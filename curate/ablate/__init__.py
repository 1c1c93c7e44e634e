"""Ablations: what policies are worth to a model that is trained on what they keep, beside random subsets of equal size."""
