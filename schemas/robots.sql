-- What hosts said of themselves: robots.txt and tdmrep.json as they were found while a part was fetched. Not aligned with
-- table rows: `row` only numbers the lines of a part. A run takes from here what is not older than a day.
CREATE TABLE robots (
    part INTEGER NOT NULL,
    row INTEGER NOT NULL,
    kind VARCHAR,
    scheme VARCHAR,
    host VARCHAR,
    port INTEGER,
    status INTEGER,
    reason VARCHAR,
    text VARCHAR,
    fetched_at TIMESTAMP WITH TIME ZONE,
    expires_at TIMESTAMP WITH TIME ZONE,
    basis VARCHAR
);
COMMENT ON COLUMN robots.part IS '[telemetry] part whose worker asked';
COMMENT ON COLUMN robots.row IS '[telemetry] line in that part, from 0';
COMMENT ON COLUMN robots.kind IS '[telemetry] robots or tdmrep';
COMMENT ON COLUMN robots.scheme IS '[telemetry] http or https';
COMMENT ON COLUMN robots.host IS '[telemetry] host name or address, lower case';
COMMENT ON COLUMN robots.port IS '[telemetry] TCP port';
COMMENT ON COLUMN robots.status IS '[telemetry] HTTP status of the last answer, after redirects';
COMMENT ON COLUMN robots.reason IS '[telemetry] why nothing whole came back, as in fetched; null when something did';
COMMENT ON COLUMN robots.text IS '[telemetry] the file, cut at 512 KiB; null when there is none';
COMMENT ON COLUMN robots.fetched_at IS '[telemetry] when it was asked for (UTC)';
COMMENT ON COLUMN robots.expires_at IS '[telemetry] until when it may be relied on (UTC), at most a day';
COMMENT ON COLUMN robots.basis IS '[lineage] fingerprint of what this part was computed from';
