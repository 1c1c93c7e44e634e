-- The evidence behind a group: each merged pair with its distance (tables pairs_<name>).
CREATE TABLE pairs (
    part INTEGER NOT NULL,
    row INTEGER NOT NULL,
    other_part INTEGER NOT NULL,
    other_row INTEGER NOT NULL,
    match VARCHAR,
    distance INTEGER,
    similarity FLOAT,
    basis VARCHAR
);
COMMENT ON COLUMN pairs.part IS '[content] first row of the pair';
COMMENT ON COLUMN pairs.row IS '[content] first row of the pair';
COMMENT ON COLUMN pairs.other_part IS '[content] second row of the pair, later in (part, row) order';
COMMENT ON COLUMN pairs.other_row IS '[content] second row of the pair';
COMMENT ON COLUMN pairs.match IS '[content] exact or perceptual; same_caption or near_caption; semantic; copy';
COMMENT ON COLUMN pairs.distance IS '[content] Hamming distance of the perceptual hashes in bits; 0 for exact; null of captions, embeddings and copies';
COMMENT ON COLUMN pairs.similarity IS '[content] Jaccard index of the captions'' shingles; 1 for same_caption; cosine of embeddings; correlation of the aligned grey values of copies; null of pictures';
COMMENT ON COLUMN pairs.basis IS '[lineage] fingerprint of what this part was computed from';
