-- What became of each row's URL. Rows that share a url_id share one request and point at the same bytes.
CREATE TABLE fetched (
    part INTEGER NOT NULL,
    row INTEGER NOT NULL,
    reason VARCHAR,
    http_status INTEGER,
    final_url VARCHAR,
    content_type VARCHAR,
    signal VARCHAR,
    signal_value VARCHAR,
    original_bytes BIGINT,
    original_width INTEGER,
    original_height INTEGER,
    original_format VARCHAR,
    sha256 VARCHAR,
    md5 VARCHAR,
    hash_drift BOOLEAN,
    blurred INTEGER,
    exif VARCHAR,
    width INTEGER,
    height INTEGER,
    format VARCHAR,
    image_bytes BIGINT,
    image_sha256 VARCHAR,
    tar_file VARCHAR,
    tar_offset BIGINT,
    tar_size BIGINT,
    basis VARCHAR
);
COMMENT ON COLUMN fetched.part IS '[content] as in rows';
COMMENT ON COLUMN fetched.row IS '[content] as in rows';
COMMENT ON COLUMN fetched.reason IS '[content] null when the image is in the tar, else why not; rows refused at plan or prefilter keep that reason, purged ones what was measured';
COMMENT ON COLUMN fetched.http_status IS '[content] status of the last answer';
COMMENT ON COLUMN fetched.final_url IS '[content] address after redirects, null when it is the requested one';
COMMENT ON COLUMN fetched.content_type IS '[content] the header as sent, cut at 200 characters';
COMMENT ON COLUMN fetched.signal IS '[content] what refused the image: name of the opt-out signal, or blocklist: and the list';
COMMENT ON COLUMN fetched.signal_value IS '[content] its value, cut at 500 characters; for a block list the number of the line';
COMMENT ON COLUMN fetched.original_bytes IS '[content] body size in bytes';
COMMENT ON COLUMN fetched.original_width IS '[content] pixels, after EXIF orientation';
COMMENT ON COLUMN fetched.original_height IS '[content] pixels, after EXIF orientation';
COMMENT ON COLUMN fetched.original_format IS '[content] sniffed from the bytes: jpeg, png, webp, gif';
COMMENT ON COLUMN fetched.sha256 IS '[content] of the body as received, 64 hex digits';
COMMENT ON COLUMN fetched.md5 IS '[content] of the body as received, 32 hex digits; null when the input list has no md5';
COMMENT ON COLUMN fetched.hash_drift IS '[content] the body has another hash than the input list promised; null when it promised none that can be checked';
COMMENT ON COLUMN fetched.blurred IS '[content] boxes of the input list that were made unrecognisable in the stored image; null when the list has none to read';
COMMENT ON COLUMN fetched.exif IS '[content] EXIF tags as JSON, cut to size';
COMMENT ON COLUMN fetched.width IS '[content] pixels as stored';
COMMENT ON COLUMN fetched.height IS '[content] pixels as stored';
COMMENT ON COLUMN fetched.format IS '[content] file extension as stored: jpg, png, webp';
COMMENT ON COLUMN fetched.image_bytes IS '[content] stored size in bytes';
COMMENT ON COLUMN fetched.image_sha256 IS '[content] of the stored image, 64 hex digits';
COMMENT ON COLUMN fetched.tar_file IS '[placement] tar that holds the image, relative to the pool';
COMMENT ON COLUMN fetched.tar_offset IS '[placement] first byte of the image in that tar';
COMMENT ON COLUMN fetched.tar_size IS '[placement] bytes of the image in that tar';
COMMENT ON COLUMN fetched.basis IS '[lineage] fingerprint of what this part was computed from';
