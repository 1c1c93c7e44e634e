"""URL list → curated shards: the whole way on any pool.

Laptop:  curate run ingest --pool POOL input.path=list.parquet
"""

from curate import steps
from curate.recipe import Recipe

recipe = Recipe(
    "ingest",
    steps=(
        steps.plan,
        steps.prefilter,
        steps.fetch,
        steps.score,
        steps.dedupe,
        steps.filter,
        steps.pack,
        steps.report,
    ),
)

if __name__ == "__main__":
    recipe.main()
