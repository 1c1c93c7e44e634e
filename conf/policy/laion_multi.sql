-- LAION-2B-multi, the other languages of LAION-5B: as LAION-2B-en, judged by a multilingual CLIP with a cut of its own.
-- source: LAION-5B (arXiv:2210.08402), section 3: under 5 characters or 5 KB dropped, cosine of at least 0.26 for languages beside English
-- source: that cosine is of mCLIP (M-CLIP's text tower beside ViT-B/32) and cannot be compared with another model's; attach or compute it
-- source: texts whose language cannot be told are a collection of their own there (LAION-1B-nolang), and are dropped here
-- source: the same section: the CLIP step removed around 90 % of the images, hence the fraction
-- requires: clip_mclip_vit_b_32
-- parameter: clip_cut = 0.26
-- parameter: caption_characters = 5
-- parameter: image_bytes = 5000
-- parameter: without_language = 'en'
-- parameter: unknown = 'unknown'
-- fraction: clip_cut keeps 0.10 of rows with an image by clip_score in clip_score_low
SELECT
    part,
    row,
    coalesce(length(trim(caption)), 0) < $caption_characters AS caption_short,
    coalesce(caption_language IN ($without_language, $unknown), true) AS caption_language,
    coalesce(original_bytes, 0) < $image_bytes AS image_small,
    clip_score IS NULL AS clip_score_missing,
    coalesce(clip_score < $clip_cut, false) AS clip_score_low
FROM samples
