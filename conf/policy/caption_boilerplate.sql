-- Captions that are not mostly wording of the whole pool: "stock photo", "image may contain", a shop's own sentence.
-- source: COYO-700M (github.com/kakaobrain/coyo-dataset), README, Filtering: texts that occur more than 10 times dropped
-- source: no published set counts phrases; look at  curate sql POOL "SELECT caption FROM samples ORDER BY phrase_captions DESC LIMIT 50"
-- source: curate derive POOL --name phrases phrases.captions=100  (how many distinct captions make a phrase: more in a larger pool)
-- parameter: copies = 10
-- parameter: phrase_words = 4
-- parameter: phrase_share = 0.8
SELECT
    part,
    row,
    coalesce(caption_copies > $copies, false) AS caption_repeated,
    coalesce(phrase_words >= $phrase_words AND phrase_share >= $phrase_share, false) AS caption_boilerplate
FROM samples
