-- A random share of the images: what every other policy is to be compared with. A smaller share is a subset of a larger one.
-- source: DataComp (arXiv:2304.14108), random subset; drawn here by hash of sample_id and seed, the same on any machine
-- parameter: share = 0.30
-- parameter: seed = 0
SELECT
    part,
    row,
    ('0x' || md5(concat_ws('/', sample_id, $seed::BIGINT))[:13])::BIGINT / 4503599627370496 >= $share AS sampled_out
FROM samples
