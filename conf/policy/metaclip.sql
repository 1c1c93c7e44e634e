-- MetaCLIP's balancing: captions that name rare concepts stay, those of frequent ones are drawn. Needs score.concepts (a list of your own).
-- source: MetaCLIP (arXiv:2309.16671), Algorithm 1: an entry with n matches is kept with probability min(1, t / n), a pair when any of its
-- source: entries is; t = 20,000 was for 400M pairs, and 6 % of all matches belonged to entries below it
-- source: Meta CLIP 2 (arXiv:2507.22062): each language has a t of its own, where the same share `tail` of its matches lies below it
-- source: draws are by hash of sample_id, entry and seed, so that the same seed gives the same subset on any machine
-- parameter: t = 0
-- parameter: tail = 0.06
-- parameter: seed = 0
WITH matched AS (
    SELECT part, row, sample_id, coalesce(caption_language, '') AS language, unnest(concept_ids) AS concept
    FROM samples
    WHERE reason IS NULL AND tar_file IS NOT NULL
), counted AS (
    SELECT language, concept, count(*) AS n FROM matched GROUP BY ALL
), cumulated AS (
    SELECT language, n, sum(n) OVER (PARTITION BY language ORDER BY n, concept) / sum(n) OVER (PARTITION BY language) AS below
    FROM counted
), cut AS (  -- the count at which the cumulated share of matches is nearest to `tail`
    SELECT language, CASE WHEN $t > 0 THEN $t ELSE arg_min(n, (abs(below - $tail), n)) END AS t FROM cumulated GROUP BY language
), drawn AS (
    SELECT part, row, bool_or(('0x' || md5(concat_ws('/', sample_id, concept, $seed::BIGINT))[:13])::BIGINT / 4503599627370496 < t / n) AS chosen
    FROM matched JOIN counted USING (language, concept) JOIN cut USING (language)
    GROUP BY part, row
)
SELECT
    part,
    row,
    coalesce(len(concept_ids), 0) = 0 AS concept_none,
    coalesce(NOT chosen, false) AS sampled_out
FROM samples LEFT JOIN drawn USING (part, row)
