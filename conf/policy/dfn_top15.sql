-- Data filtering networks: the best 15 % by a CLIP that was trained to filter. The network is yours: its scores stand in clip_dfn.
-- source: DFN (arXiv:2309.17425): a small CLIP trained on clean pairs scores the pool; about the best 15 % were kept of DataComp's
-- source: curate score POOL --name dfn --weights ./dfn  gives clip_dfn, as does  curate attach … --column clip_dfn=dfn_score
-- parameter: clip_cut = quantile
-- fraction: clip_cut keeps 0.15 of rows with an image by clip_dfn in clip_score_low
SELECT
    part,
    row,
    clip_dfn IS NULL AS clip_score_missing,
    coalesce(clip_dfn < $clip_cut, false) AS clip_score_low
FROM samples
