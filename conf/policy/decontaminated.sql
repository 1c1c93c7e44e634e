-- Everything but what `curate decontaminate` found of evaluation sets and nobody cleared; any policy may have the same rule.
-- source: DataComp removed near copies of its evaluation images from its pool (arXiv:2304.14108, section 3.2 and appendix)
SELECT
    part,
    row,
    coalesce(contaminated, false) AS contaminated
FROM samples
