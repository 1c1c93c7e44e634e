"""What `curate demo` runs: the way of `ingest`, with a CLIP of the pool's own, and a model trained and evaluated on the result."""

from curate import steps
from curate.recipe import Recipe

recipe = Recipe(
    "demo",
    steps=(
        steps.plan,
        steps.prefilter,
        steps.fetch,
        steps.fit,
        steps.score,
        steps.dedupe,
        steps.filter,
        steps.pack,
        steps.report,
        steps.train,
        steps.evaluate,
    ),
)

if __name__ == "__main__":
    recipe.main()
