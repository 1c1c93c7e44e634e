-- At most so many images of one host, drawn by hash: no single site makes up the data.
-- source: no published set names a number; choose one by looking at how many images your largest hosts have
-- parameter: most = 1000
-- parameter: seed = 0
WITH drawn AS (
    SELECT part, row, row_number() OVER (
        PARTITION BY host(url)
        ORDER BY md5(concat_ws('/', sample_id, $seed::BIGINT)), sample_id
    ) AS place
    FROM samples
    WHERE reason IS NULL AND tar_file IS NOT NULL
)
SELECT part, row, coalesce(place > $most, false) AS sampled_out
FROM samples LEFT JOIN drawn USING (part, row)
