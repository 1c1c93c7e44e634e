-- One policy's verdict on each row (tables decisions_<policy>; decisions_prefilter is taken before fetch).
CREATE TABLE decisions (
    part INTEGER NOT NULL,
    row INTEGER NOT NULL,
    keep BOOLEAN,
    reason VARCHAR,
    failed_rules VARCHAR[],
    basis VARCHAR
);
COMMENT ON COLUMN decisions.part IS '[content] as in rows';
COMMENT ON COLUMN decisions.row IS '[content] as in rows';
COMMENT ON COLUMN decisions.keep IS '[content] true when the row is in the subset';
COMMENT ON COLUMN decisions.reason IS '[content] first failing rule; null when kept';
COMMENT ON COLUMN decisions.failed_rules IS '[content] every rule of the policy that the row fails, in the policy''s order';
COMMENT ON COLUMN decisions.basis IS '[lineage] fingerprint of what this part was computed from';
