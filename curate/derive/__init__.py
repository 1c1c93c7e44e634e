"""Numbers from stored embeddings: scores that need no image any more, for policies as any other."""
