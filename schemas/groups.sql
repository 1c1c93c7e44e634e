-- Which rows show the same picture, or have the same caption (tables groups_<name>). Every pair that was merged is kept in pairs_<name>.
CREATE TABLE groups (
    part INTEGER NOT NULL,
    row INTEGER NOT NULL,
    group_id VARCHAR,
    group_size INTEGER,
    match VARCHAR,
    basis VARCHAR
);
COMMENT ON COLUMN groups.part IS '[content] as in rows';
COMMENT ON COLUMN groups.row IS '[content] as in rows';
COMMENT ON COLUMN groups.group_id IS '[content] smallest sample_id of the group; null when the row stands alone';
COMMENT ON COLUMN groups.group_size IS '[content] members of the group, 1 when alone, null without an image';
COMMENT ON COLUMN groups.match IS '[content] exact when all members have equal bytes, else perceptual; by captions same_caption or near_caption; null when alone';
COMMENT ON COLUMN groups.basis IS '[lineage] fingerprint of what this part was computed from';
