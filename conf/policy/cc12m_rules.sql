-- The rules of Conceptual 12M that need no tagger: large pictures that are not narrow, captions of 3 to 256 words in whole phrases.
-- source: Conceptual 12M (arXiv:2102.08981), section 2: both sides over 400 pixels, ratio of the sides at most 2.5, 3 to 256 words,
-- source: at most 0.2 of the words repeated, no caption without a determiner, none with a word that fewer than 20 texts of the pool hold
-- source: that 20 was for a pool of billions, so `rare` is 0 here, which asks nothing: choose it by the size of yours
-- source: the determiners are the closed class of English grammars; words are runs of letters, digits, apostrophes and hyphens in any case
-- source: left out: JPEG files only, captions without a noun (they took Google's tagger), and the pornography detectors
-- parameter: min_side = 401
-- parameter: max_aspect = 2.5
-- parameter: least_words = 3
-- parameter: most_words = 256
-- parameter: repetition = 0.2
-- parameter: rare = 0
WITH worded AS (
    SELECT part, row, regexp_extract_all(lower(coalesce(caption, '')), '[\p{L}\p{N}][\p{L}\p{M}\p{N}''’-]*') AS words FROM samples
), counted AS (
    SELECT word, count(*) AS n FROM (SELECT unnest(list_distinct(words)) AS word FROM worded) GROUP BY word
), rarest AS (
    SELECT part, row, min(n) AS n
    FROM (SELECT part, row, unnest(list_distinct(words)) AS word FROM worded WHERE $rare > 0) JOIN counted USING (word) GROUP BY part, row
)
SELECT
    part,
    row,
    coalesce(least(original_width, original_height), 0) < $min_side AS image_small,
    coalesce(greatest(original_width, original_height) > $max_aspect * least(original_width, original_height), true) AS image_aspect,
    len(regexp_extract_all(coalesce(caption, ''), '\S+')) < $least_words AS caption_short,
    len(regexp_extract_all(coalesce(caption, ''), '\S+')) > $most_words AS caption_long,
    coalesce((len(words) - len(list_distinct(words))) / nullif(len(words), 0) > $repetition, false) AS caption_repetitive,
    NOT list_has_any(words, [
        'a', 'an', 'the', 'this', 'that', 'these', 'those', 'my', 'your', 'his', 'her', 'its', 'our', 'their', 'whose', 'some', 'any',
        'no', 'every', 'each', 'either', 'neither', 'all', 'both', 'half', 'many', 'much', 'more', 'most', 'few', 'fewer', 'little',
        'less', 'several', 'enough', 'another', 'other', 'such', 'what', 'which'
    ]) AS caption_no_determiner,
    coalesce(rarest.n < $rare, false) AS caption_rare_word
FROM samples JOIN worded USING (part, row) LEFT JOIN rarest USING (part, row)
