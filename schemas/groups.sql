-- Which rows show the same picture, have the same caption or mean the same (tables groups_<name>). Every pair that was merged is kept in pairs_<name>.
CREATE TABLE groups (
    part INTEGER NOT NULL,
    row INTEGER NOT NULL,
    group_id VARCHAR,
    group_size INTEGER,
    match VARCHAR,
    group_cluster BIGINT,
    group_rank BIGINT,
    group_similarity DOUBLE,
    basis VARCHAR
);
COMMENT ON COLUMN groups.part IS '[content] as in rows';
COMMENT ON COLUMN groups.row IS '[content] as in rows';
COMMENT ON COLUMN groups.group_id IS '[content] smallest sample_id of the group; null when the row stands alone';
COMMENT ON COLUMN groups.group_size IS '[content] members of the group, 1 when alone, null without an image, or without an embedding where these are compared';
COMMENT ON COLUMN groups.match IS '[content] exact when all members have equal bytes, else perceptual; by captions same_caption or near_caption; semantic by embeddings; exact or copy by copies; null when alone';
COMMENT ON COLUMN groups.group_cluster IS '[scores] by embeddings: number of the nearest centroid';
COMMENT ON COLUMN groups.group_rank IS '[scores] by embeddings: place among the rows of the cluster, 0 the most preferred; of a group the first one stays';
COMMENT ON COLUMN groups.group_similarity IS '[scores] by embeddings: largest cosine to a row of the cluster with a smaller rank, at least 0';
COMMENT ON COLUMN groups.basis IS '[lineage] fingerprint of what this part was computed from';
