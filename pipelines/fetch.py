"""URL list → images and the table of what became of each row, and no more: what img2dataset does.

Laptop:  curate run fetch --pool POOL input.path=list.parquet
"""

from curate import steps
from curate.recipe import Recipe

recipe = Recipe("fetch", steps=(steps.plan, steps.prefilter, steps.fetch))

if __name__ == "__main__":
    recipe.main()
