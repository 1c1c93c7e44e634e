"""What a trained model can do, with intervals: zero-shot classification, retrieval, finding mismatched captions."""
