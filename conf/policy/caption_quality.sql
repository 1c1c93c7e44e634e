-- Captions that say something: neither too short nor too long, few repetitions, mostly words. No image is looked at.
-- source: Gopher (arXiv:2112.11446), appendix A.1.1: mean word length 3 to 10 characters, a letter in at least 80 % of the words;
-- source: table A1: at most 0.20 of the characters in the most frequent 2-gram, at most 0.15 in duplicate 5-grams
-- source: those are limits for documents: the least word length is 2 here, since "a photo of a dog" has 2.4, and words without letters
-- source: are counted together with addresses, file names and codes; the share of repeated words is no published one
-- source: Conceptual 12M (arXiv:2102.08981), section 2: 3 to 256 words
-- parameter: least_words = 3
-- parameter: most_words = 256
-- parameter: repeated_words = 0.5
-- parameter: top_bigram = 0.20
-- parameter: duplicate_5grams = 0.15
-- parameter: least_word_length = 2
-- parameter: most_word_length = 10
-- parameter: non_words = 0.2
SELECT
    part,
    row,
    coalesce(caption_words < $least_words, true) AS caption_short,
    coalesce(caption_words > $most_words, false) AS caption_long,
    coalesce(caption_repeated_words > $repeated_words OR caption_top_bigram > $top_bigram
        OR caption_duplicate_5grams > $duplicate_5grams, false) AS caption_repetitive,
    coalesce(caption_non_words > $non_words OR caption_word_length NOT BETWEEN $least_word_length AND $most_word_length, false)
        AS caption_non_words
FROM samples
