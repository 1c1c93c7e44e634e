-- DataComp's image-based filtering: English captions that are no single word, images from clusters that ImageNet's images name.
-- source: DataComp (arXiv:2304.14108), section 3.3, image-based filtering; baselines/apply_filter.py, load_uids_with_image_filter
-- source: its caption_filter: fastText says en, more than one token (fastText's, to which a line break is one), more than 5 characters
-- source: curate derive POOL --name clusters clusters.reference.path=imagenet.npy  (ViT-L/14 there, 100,000 clusters of the pool)
-- source: a language is the likeliest by fastText, however unsure; to take unsure guesses too, score with caption.unknown_below=0
-- parameter: caption_words = 1
-- parameter: caption_characters = 5
-- parameter: language = 'en'
SELECT
    part,
    row,
    coalesce(caption_language <> $language, true) AS caption_language,
    coalesce(length(caption), 0) <= $caption_characters
        OR len(regexp_extract_all(caption, '[^ \n\r\t\v\f\x00]+|\n')) <= $caption_words AS caption_short,
    coalesce(NOT image_cluster_named, true) AS cluster_unnamed
FROM samples
