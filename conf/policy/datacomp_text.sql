-- DataComp's text-based filtering: English captions with a word whose first sense is a class of ImageNet-21k.
-- source: DataComp (arXiv:2304.14108), section 3.3, text-based filtering; baselines/apply_filter.py, load_uids_with_text_entity
-- source: words are runs without white space, senses those of WordNet 3.0, the first of all: nouns come before verbs
-- source: curate score POOL --name entities synsets.wordnet=FOLDER synsets.wnids=imagenet21k.txt image=null caption=null clip=null
-- source: a language is the likeliest by fastText, however unsure; to take unsure guesses too, score with caption.unknown_below=0
-- parameter: language = 'en'
SELECT
    part,
    row,
    coalesce(caption_language <> $language, true) AS caption_language,
    coalesce(NOT caption_entity, true) AS concept_none
FROM samples
