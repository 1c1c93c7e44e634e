-- negCLIPLoss, then NormSim: of the best 30 % by negCLIPLoss the two thirds that are nearest to a target set.
-- source: Wang et al. (arXiv:2405.19547): quality by negCLIPLoss first, then NormSim among what it leaves; the second share is to be
-- source: tuned (fractions.normsim_cut=…), or a fixed cut be given (normsim_cut=…); two thirds leave 20 % of the pool
-- source: curate derive POOL --name loss neg_clip_loss.temperature=0.01 normsim.target.path=target.npy
-- source: normsim_inf is the nearest target image; normsim_2, the norm over all of them, may stand in its place
-- parameter: loss_cut = quantile
-- parameter: normsim_cut = quantile
-- fraction: loss_cut keeps 0.30 of rows with an image by neg_clip_loss in clip_score_low
-- fraction: normsim_cut keeps 0.6667 of rows left by clip_score_low by normsim_inf in normsim_low
SELECT
    part,
    row,
    neg_clip_loss IS NULL AS clip_score_missing,
    coalesce(neg_clip_loss < $loss_cut, false) AS clip_score_low,
    coalesce(normsim_inf < $normsim_cut, true) AS normsim_low
FROM samples
