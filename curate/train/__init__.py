"""Contrastive image-text pre-training of open_clip models on packed shards or a SQL selection; needs the extra `train`."""
