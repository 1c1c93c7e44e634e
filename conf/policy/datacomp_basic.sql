-- DataComp's basic filtering: English captions of more than 2 words, images that are not small and not narrow. No model is asked.
-- source: DataComp (arXiv:2304.14108), section 3.3; github.com/mlfoundations/datacomp, baselines/apply_filter.py, load_uids_with_basic_filter
-- source: words are runs without white space, lengths are counted as they stand, as that function counts them
-- source: a language is the likeliest by fastText, however unsure; to take unsure guesses too, score with caption.unknown_below=0
-- parameter: caption_words = 2
-- parameter: caption_characters = 5
-- parameter: min_side = 200
-- parameter: max_aspect = 3.0
-- parameter: language = 'en'
SELECT
    part,
    row,
    coalesce(caption_language <> $language, true) AS caption_language,
    coalesce(length(caption), 0) <= $caption_characters
        OR len(regexp_extract_all(caption, '\S+')) <= $caption_words AS caption_short,
    coalesce(least(original_width, original_height), 0) < $min_side AS image_small,
    coalesce(greatest(original_width, original_height) > $max_aspect * least(original_width, original_height), true) AS image_aspect
FROM samples
