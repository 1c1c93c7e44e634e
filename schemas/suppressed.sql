-- What must never come back: one line per withdrawn row, or per entry of a takedown list that the pool does not hold.
-- A line with a url_id bars the URL under every caption; a line with a sample_id alone bars only that row.
CREATE TABLE suppressed (
    part INTEGER NOT NULL,
    row INTEGER NOT NULL,
    sample_id VARCHAR,
    url_id VARCHAR,
    sha256 VARCHAR,
    image_sha256 VARCHAR,
    because VARCHAR,
    withdrawn_at TIMESTAMP WITH TIME ZONE,
    basis VARCHAR
);
COMMENT ON COLUMN suppressed.part IS '[content] number of the takedown in this pool';
COMMENT ON COLUMN suppressed.row IS '[content] line of that takedown, from 0';
COMMENT ON COLUMN suppressed.sample_id IS '[content] row that is barred; null for an entry that the pool does not hold';
COMMENT ON COLUMN suppressed.url_id IS '[content] URL that is barred; null where other rows may go on using its image';
COMMENT ON COLUMN suppressed.sha256 IS '[content] of a body that is barred, under whatever URL it comes';
COMMENT ON COLUMN suppressed.image_sha256 IS '[content] of a stored image that is barred';
COMMENT ON COLUMN suppressed.because IS '[telemetry] what the person said who asked for the takedown';
COMMENT ON COLUMN suppressed.withdrawn_at IS '[telemetry] when the takedown began (UTC)';
COMMENT ON COLUMN suppressed.basis IS '[lineage] fingerprint';
