-- For the demo's pools: a real caption, a picture of a usable size and shape, and the better 70 % by a CLIP trained on the pool itself.
-- source: aspect as DataComp's basic filtering; the other cuts were chosen by looking at pictures on both sides of each
-- source: rows that fitted that CLIP have no clip_score, because it would judge what it was trained on
-- parameter: repeats = 20
-- parameter: min_side = 100
-- parameter: max_aspect = 3.0
-- parameter: clip_cut = quantile
-- fraction: clip_cut keeps 0.70 of rows scored by clip_score in clip_score_low
SELECT
    part,
    row,
    coalesce(trim(caption), '') = '' AS caption_short,
    count(*) OVER (PARTITION BY lower(trim(caption))) >= $repeats AS caption_repeated,
    coalesce(least(original_width, original_height), 0) < $min_side AS image_small,
    coalesce(greatest(original_width, original_height) > $max_aspect * least(original_width, original_height), true) AS image_aspect,
    clip_score IS NULL AS clip_score_missing,
    coalesce(clip_score < $clip_cut, false) AS clip_score_low
FROM samples
