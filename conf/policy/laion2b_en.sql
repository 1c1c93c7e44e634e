-- LAION-2B-en, the English part of LAION-5B: as LAION-400M, in English, with a lower cut.
-- source: LAION-5B (arXiv:2210.08402), section 3: under 5 characters or 5 KB dropped, CLIP ViT-B/32 cosine of at least 0.28 for English
-- source: the same section: the CLIP step removed around 90 % of the images, hence the fraction
-- source: LAION told languages with CLD3; caption_language here is fastText's
-- requires: clip_vit_b_32_openai
-- parameter: clip_cut = 0.28
-- parameter: caption_characters = 5
-- parameter: image_bytes = 5000
-- parameter: language = 'en'
-- fraction: clip_cut keeps 0.10 of rows with an image by clip_score in clip_score_low
SELECT
    part,
    row,
    coalesce(length(trim(caption)), 0) < $caption_characters AS caption_short,
    coalesce(caption_language <> $language, true) AS caption_language,
    coalesce(original_bytes, 0) < $image_bytes AS image_small,
    clip_score IS NULL AS clip_score_missing,
    coalesce(clip_score < $clip_cut, false) AS clip_score_low
FROM samples
