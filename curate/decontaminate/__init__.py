"""Which rows of a pool show or say what an evaluation set does, with the evidence."""
