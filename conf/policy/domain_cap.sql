-- At most so many images of one registrable domain, drawn by hash: images1.example.org and images2.example.org are one site.
-- source: domains by the public suffix list (publicsuffix.org), its private part included: each blog of a host of blogs is its own
-- source: no published set names a number; choose one by looking at how many images your largest domains have
-- parameter: most = 1000
-- parameter: seed = 0
WITH hosts AS (
    SELECT host, domain(host) AS site FROM (SELECT DISTINCT host(url) AS host FROM samples)
), drawn AS (
    SELECT part, row, row_number() OVER (
        PARTITION BY site ORDER BY md5(concat_ws('/', sample_id, $seed::BIGINT)), sample_id, part, row
    ) AS place
    FROM samples LEFT JOIN hosts ON host(url) IS NOT DISTINCT FROM hosts.host
    WHERE reason IS NULL AND tar_file IS NOT NULL
)
SELECT part, row, coalesce(place > $most, false) AS sampled_out
FROM samples LEFT JOIN drawn USING (part, row)
