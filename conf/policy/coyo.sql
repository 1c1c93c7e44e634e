-- COYO-700M's image and text levels: sizes, lengths of captions, and captions that stand at many images.
-- source: github.com/kakaobrain/coyo-dataset, README, Filtering: files under 5 KB, aspect over 3.0 and min(width, height) under 200 dropped
-- source: the same: fewer than 3 or more than 256 words, over 1,000 characters, and texts that occur more than 10 times dropped
-- source: left out here: English by cld3 (caption_language stands for it), non-nouns, nsfw and watermark scores, which COYO keeps as columns
-- parameter: image_bytes = 5000
-- parameter: min_side = 200
-- parameter: max_aspect = 3.0
-- parameter: least_words = 3
-- parameter: most_words = 256
-- parameter: most_characters = 1000
-- parameter: repeats = 10
-- parameter: language = 'en'
SELECT
    part,
    row,
    coalesce(original_bytes, 0) < $image_bytes OR coalesce(least(original_width, original_height), 0) < $min_side AS image_small,
    coalesce(greatest(original_width, original_height) > $max_aspect * least(original_width, original_height), true) AS image_aspect,
    coalesce(caption_language <> $language, true) AS caption_language,
    len(regexp_extract_all(coalesce(caption, ''), '\S+')) < $least_words AS caption_short,
    len(regexp_extract_all(coalesce(caption, ''), '\S+')) > $most_words OR coalesce(length(caption), 0) > $most_characters AS caption_long,
    count(*) OVER (PARTITION BY trim(caption)) > $repeats AS caption_repeated
FROM samples
