-- The ledger: one line per input row, all that is known about it joined.
-- `curate.catalog.views` fills in the places in braces; every table on the right has at most one line per (part, row).
CREATE VIEW samples AS
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
    FROM "rows"
    LEFT JOIN decisions_prefilter USING (part, row)
    LEFT JOIN fetched USING (part, row)
    {score_joins}
    LEFT JOIN {groups} AS grouped USING (part, row)
    LEFT JOIN {decisions} AS decision USING (part, row)
)
SELECT
    joined.*,
    CASE
        WHEN joined.reason IS NOT NULL THEN coalesce(reasons.outcome, 'dropped')
        WHEN keep THEN 'kept'
        ELSE 'pending'
    END AS outcome
FROM joined
LEFT JOIN reasons ON reasons.reason = joined.reason
