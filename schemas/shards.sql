-- The index of packed shards: one line per packed sample, with byte offsets into the tar.
CREATE TABLE shards (
    part INTEGER NOT NULL,
    row INTEGER NOT NULL,
    subset VARCHAR,
    shard INTEGER,
    position INTEGER,
    sample_id VARCHAR,
    tar_file VARCHAR,
    members STRUCT(extension VARCHAR, "offset" BIGINT, size BIGINT)[],
    image_sha256 VARCHAR,
    basis VARCHAR
);
COMMENT ON COLUMN shards.part IS '[content] as in rows';
COMMENT ON COLUMN shards.row IS '[content] as in rows';
COMMENT ON COLUMN shards.subset IS '[content] name of the subset that was packed';
COMMENT ON COLUMN shards.shard IS '[content] shard number, from 0';
COMMENT ON COLUMN shards.position IS '[content] position in the shard, from 0';
COMMENT ON COLUMN shards.sample_id IS '[content] as in rows; also the key of the tar members';
COMMENT ON COLUMN shards.tar_file IS '[placement] the tar, relative to the pool';
COMMENT ON COLUMN shards.members IS '[placement] extension, first byte and size of each member in that tar';
COMMENT ON COLUMN shards.image_sha256 IS '[content] sha256 of the packed image where it is not the fetched one, since boxes in it were blurred; else null';
COMMENT ON COLUMN shards.basis IS '[lineage] fingerprint of what this shard was computed from';
