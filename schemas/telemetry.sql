-- How the work went: times and places, never part of a digest.
CREATE TABLE telemetry (
    part INTEGER NOT NULL,
    row INTEGER NOT NULL,
    phase VARCHAR,
    finished_at TIMESTAMP WITH TIME ZONE,
    attempts INTEGER,
    latency_seconds DOUBLE,
    bytes_read BIGINT,
    worker VARCHAR,
    basis VARCHAR
);
COMMENT ON COLUMN telemetry.part IS '[telemetry] as in rows';
COMMENT ON COLUMN telemetry.row IS '[telemetry] as in rows';
COMMENT ON COLUMN telemetry.phase IS '[telemetry] phase that wrote the line';
COMMENT ON COLUMN telemetry.finished_at IS '[telemetry] when the row was done (UTC)';
COMMENT ON COLUMN telemetry.attempts IS '[telemetry] requests sent for the URL, redirects not counted';
COMMENT ON COLUMN telemetry.latency_seconds IS '[telemetry] from first byte sent to last byte read, of the last attempt';
COMMENT ON COLUMN telemetry.bytes_read IS '[telemetry] body bytes read over all attempts';
COMMENT ON COLUMN telemetry.worker IS '[telemetry] host and process';
COMMENT ON COLUMN telemetry.basis IS '[lineage] fingerprint of what this part was computed from';
