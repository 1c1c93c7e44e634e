-- The rules of Conceptual 12M that need no tagger: large pictures that are not narrow, captions of 3 to 256 words.
-- source: Conceptual 12M (arXiv:2102.08981), section 2: both sides over 400 pixels, ratio of the sides at most 2.5, 3 to 256 words
-- source: left out: JPEG files only, parts of speech, repeated and rare words, and the pornography detectors
-- parameter: min_side = 401
-- parameter: max_aspect = 2.5
-- parameter: least_words = 3
-- parameter: most_words = 256
SELECT
    part,
    row,
    coalesce(least(original_width, original_height), 0) < $min_side AS image_small,
    coalesce(greatest(original_width, original_height) > $max_aspect * least(original_width, original_height), true) AS image_aspect,
    len(regexp_extract_all(coalesce(caption, ''), '\S+')) < $least_words AS caption_short,
    len(regexp_extract_all(coalesce(caption, ''), '\S+')) > $most_words AS caption_long
FROM samples
