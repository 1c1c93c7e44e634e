-- The best 30 % by CLIP score, whichever model gave it. An image without a score counts in the whole and is never kept.
-- source: DataComp (arXiv:2304.14108), CLIP score filtering; baselines/apply_filter.py, get_threshold: a share of all rows with an image
-- parameter: clip_cut = quantile
-- fraction: clip_cut keeps 0.30 of rows with an image by clip_score in clip_score_low
SELECT
    part,
    row,
    clip_score IS NULL AS clip_score_missing,
    coalesce(clip_score < $clip_cut, false) AS clip_score_low
FROM samples
