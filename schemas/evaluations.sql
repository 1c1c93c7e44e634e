-- Results of trained models: one line per model, task, metric and slice.
CREATE TABLE evaluations (
    part INTEGER NOT NULL,
    row INTEGER NOT NULL,
    model VARCHAR,
    weights_sha256 VARCHAR,
    task VARCHAR,
    metric VARCHAR,
    value DOUBLE,
    low DOUBLE,
    high DOUBLE,
    samples BIGINT,
    settings VARCHAR,
    basis VARCHAR
);
COMMENT ON COLUMN evaluations.part IS '[telemetry] number of the evaluation in this pool';
COMMENT ON COLUMN evaluations.row IS '[telemetry] line in that evaluation';
COMMENT ON COLUMN evaluations.model IS '[telemetry] name of the run or checkpoint';
COMMENT ON COLUMN evaluations.weights_sha256 IS '[telemetry] of the weights file';
COMMENT ON COLUMN evaluations.task IS '[telemetry] for example scenes/retrieval';
COMMENT ON COLUMN evaluations.metric IS '[telemetry] for example image_to_text_recall_at_1';
COMMENT ON COLUMN evaluations.value IS '[telemetry] the figure, 0 to 1';
COMMENT ON COLUMN evaluations.low IS '[telemetry] lower end of the 95 % bootstrap interval';
COMMENT ON COLUMN evaluations.high IS '[telemetry] upper end of the 95 % bootstrap interval';
COMMENT ON COLUMN evaluations.samples IS '[telemetry] how many samples the figure stands on';
COMMENT ON COLUMN evaluations.settings IS '[telemetry] JSON of what was evaluated how';
COMMENT ON COLUMN evaluations.basis IS '[lineage] fingerprint';
