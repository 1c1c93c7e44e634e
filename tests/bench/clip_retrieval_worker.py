"""Runs clip-retrieval's own inference worker and says how fast it was; for its own environment, see `tests.bench.score_peer`.

Nothing of it is replaced: its writer is watched, which tells when a batch is done.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Does what the JSON object in the first argument says."""
    import open_clip
    from clip_retrieval.clip_inference import worker as inference

    said = json.loads(sys.argv[1])
    open_clip.add_model_config(Path(said["config"]))
    moments: list[tuple[float, int]] = []

    class Watched(inference.NumpyWriter):  # type: ignore[misc, name-defined, unused-ignore]
        def __call__(self, batch: dict[str, Any]) -> None:
            super().__call__(batch)
            moments.append((time.monotonic(), len(batch["image_embs"])))

    inference.NumpyWriter = Watched  # type: ignore[misc, unused-ignore]
    inference.worker(
        tasks=[0], input_dataset=said["tars"], output_folder=said["output"], output_partition_count=1, input_format="webdataset",
        batch_size=said["batch"], num_prepro_workers=said["loaders"], enable_metadata=False, clip_model=said["model"],
        use_jit=said.get("jit", True),
    )  # fmt: skip
    seconds, images = moments[-1][0] - moments[0][0], sum(count for _, count in moments[1:])
    print(json.dumps({"images_per_second": images / seconds, "images": images}))


if __name__ == "__main__":
    main()
