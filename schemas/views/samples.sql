-- The ledger: one line per input row, all that is known about it joined.
-- `curate.catalog.views` fills in the places in braces; every table beside `rows` has at most one line per (part, row).
CREATE VIEW {view} AS
WITH joined AS (
    SELECT
        {columns},
        decision.keep,
        decision.failed_rules,
        CASE
            WHEN "rows".reason IS NOT NULL THEN 'plan'
            WHEN decisions_prefilter.reason IS NOT NULL THEN 'prefilter'
            WHEN fetched.reason <> 'purged' THEN 'fetch'
            WHEN {score_reason} IS NOT NULL THEN 'score'
            WHEN decision.reason IS NOT NULL THEN 'filter'
            WHEN fetched.reason IS NOT NULL THEN 'fetch'
        END AS phase,
        coalesce(  -- a purged row keeps the reason for which it had been dropped
            "rows".reason, decisions_prefilter.reason, nullif(fetched.reason, 'purged'), {score_reason}, decision.reason, fetched.reason
        ) AS reason
    FROM {tables}
)
SELECT
    joined.*,
    CASE
        WHEN joined.reason IN ({failed}) THEN 'failed'
        WHEN joined.reason IS NOT NULL THEN 'dropped'
        WHEN keep THEN 'kept'
        ELSE 'pending'
    END AS outcome
FROM joined
