-- LAION-400M as published: caption and file of a least size, image and caption alike to CLIP.
-- source: laion.ai/blog/laion-400-open-dataset, steps 3 to 5: under 5 characters or 5 KB dropped, CLIP ViT-B/32 cosine of at least 0.3
-- source: its steps name no language filter; add caption_language as in laion2b_en for English only
-- source: no share is published for this cut; the fraction is LAION-5B's, whose lower cut left about a tenth
-- requires: clip_vit_b_32_openai
-- parameter: clip_cut = 0.30
-- parameter: caption_characters = 5
-- parameter: image_bytes = 5000
-- fraction: clip_cut keeps 0.10 of rows with an image by clip_score in clip_score_low
SELECT
    part,
    row,
    coalesce(length(trim(caption)), 0) < $caption_characters AS caption_short,
    coalesce(original_bytes, 0) < $image_bytes AS image_small,
    clip_score IS NULL AS clip_score_missing,
    coalesce(clip_score < $clip_cut, false) AS clip_score_low
FROM samples
