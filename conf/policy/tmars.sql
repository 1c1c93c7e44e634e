-- T-MARS: the better half by the CLIP score that is left when the text in a picture is painted over.
-- source: T-MARS (arXiv:2307.03132): text filled with the mean colour around it, scored again, the lower half of the similarities dropped
-- source: curate score POOL --name text text.letters=2 image=null caption=null clip=null  finds the text
-- source: curate score POOL --name masked --model ViT-B-32 --weights openai clip.mask.of=text image=null caption=null  scores again
-- parameter: masked_cut = quantile
-- fraction: masked_cut keeps 0.50 of rows with an image by clip_score_masked in clip_score_low
SELECT
    part,
    row,
    clip_score_masked IS NULL AS clip_score_missing,
    coalesce(clip_score_masked < $masked_cut, false) AS clip_score_low
FROM samples
