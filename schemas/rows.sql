-- One line per input row: what was asked for. Sorted by (part, row); a part is a hash bucket of url_id.
-- Input columns follow as source.<name>, with the type they had.
CREATE TABLE rows (
    part INTEGER NOT NULL,
    row INTEGER NOT NULL,
    sample_id VARCHAR,
    url_id VARCHAR,
    url VARCHAR,
    caption VARCHAR,
    captions STRUCT(name VARCHAR, text VARCHAR, source VARCHAR)[],
    label VARCHAR,
    regions STRUCT(box DOUBLE[], phrase VARCHAR)[],
    source_file VARCHAR,
    source_row BIGINT,
    reason VARCHAR,
    earlier_parts INTEGER[],
    basis VARCHAR
);
COMMENT ON COLUMN rows.part IS '[content] unit of work the row belongs to';
COMMENT ON COLUMN rows.row IS '[content] position in the part, from 0';
COMMENT ON COLUMN rows.sample_id IS '[content] 128 bits of sha256 of canonical URL, newline, caption, as 32 hex digits';
COMMENT ON COLUMN rows.url_id IS '[content] 128 bits of sha256 of the canonical URL, as 32 hex digits';
COMMENT ON COLUMN rows.url IS '[content] canonical URL: fragment and default port dropped; the input text when it is no URL';
COMMENT ON COLUMN rows.caption IS '[content] the caption to train on';
COMMENT ON COLUMN rows.captions IS '[content] further captions of the same image, each with its origin';
COMMENT ON COLUMN rows.label IS '[content] class name, where the list has one';
COMMENT ON COLUMN rows.regions IS '[content] boxes (x, y, width, height in pixels) with phrases, where the list has them';
COMMENT ON COLUMN rows.source_file IS '[content] input file, relative to the list path';
COMMENT ON COLUMN rows.source_row IS '[content] row number in that file, from 0';
COMMENT ON COLUMN rows.reason IS '[content] why the row is not requested: input_unparseable, bad_url, bad_scheme, duplicate_row, withdrawn; null when it is';
COMMENT ON COLUMN rows.earlier_parts IS '[placement] parts of lists added before that ask for the same URL, ascending: what they have is not asked for again';
COMMENT ON COLUMN rows.basis IS '[lineage] fingerprint of what this part was computed from';
