-- At most so many images of one concept, drawn by hash; an image counts for the rarest concept that its caption names.
-- source: no published set caps so: MetaCLIP (arXiv:2309.16671; policy metaclip) draws each pair for each of its concepts, which keeps
-- source: about t of each, and an image that one draw chose also where it names a frequent concept; here the number is exact
-- source: images whose captions name no concept are not capped. Needs score.concepts (a list of your own)
-- parameter: most = 1000
-- parameter: seed = 0
WITH matched AS (
    SELECT part, row, sample_id, unnest(concept_ids) AS concept
    FROM samples
    WHERE reason IS NULL AND tar_file IS NOT NULL
), counted AS (
    SELECT concept, count(*) AS n FROM matched GROUP BY concept
), led AS (
    SELECT part, row, sample_id, arg_min(concept, (n, concept)) AS concept
    FROM matched JOIN counted USING (concept)
    GROUP BY part, row, sample_id
), drawn AS (
    SELECT part, row, row_number() OVER (
        PARTITION BY concept ORDER BY md5(concat_ws('/', sample_id, $seed::BIGINT)), sample_id, part, row
    ) AS place
    FROM led
)
SELECT part, row, coalesce(place > $most, false) AS sampled_out
FROM samples LEFT JOIN drawn USING (part, row)
