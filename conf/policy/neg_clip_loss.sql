-- negCLIPLoss, first called s-CLIPLoss: the best 30 % by CLIP score less what a row owes to being like everything.
-- source: Wang et al. (arXiv:2405.19547), negCLIPLoss; temperature 0.01 of OpenAI's models, 10 random batches of 32,768
-- source: curate derive POOL --name loss neg_clip_loss.temperature=0.01  (a CLIP of your own: its own temperature)
-- parameter: loss_cut = quantile
-- fraction: loss_cut keeps 0.30 of rows with an image by neg_clip_loss in clip_score_low
SELECT
    part,
    row,
    neg_clip_loss IS NULL AS clip_score_missing,
    coalesce(neg_clip_loss < $loss_cut, false) AS clip_score_low
FROM samples
