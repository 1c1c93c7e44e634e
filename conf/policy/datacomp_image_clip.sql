-- DataComp's best baseline of the medium pool and above: image-based filtering, and of these the rows in the best 30 % by CLIP score.
-- source: DataComp (arXiv:2304.14108), section 3.3, image-based ∩ CLIP score (L/14 30 %); the share is one of all rows with
-- source: an image, not of those that the other rules leave; baselines/apply_filter.py, image_based_intersect_clip_score
-- source: captions and clusters as in datacomp_image
-- source: a language is the likeliest by fastText, however unsure; to take unsure guesses too, score with caption.unknown_below=0
-- parameter: clip_cut = quantile
-- parameter: caption_words = 1
-- parameter: caption_characters = 5
-- parameter: language = 'en'
-- fraction: clip_cut keeps 0.30 of rows with an image by clip_score in clip_score_low
SELECT
    part,
    row,
    coalesce(caption_language <> $language, true) AS caption_language,
    coalesce(length(caption), 0) <= $caption_characters
        OR len(regexp_extract_all(caption, '[^ \n\r\t\v\f\x00]+|\n')) <= $caption_words AS caption_short,
    coalesce(NOT image_cluster_named, true) AS cluster_unnamed,
    clip_score IS NULL AS clip_score_missing,
    coalesce(clip_score < $clip_cut, false) AS clip_score_low
FROM samples
