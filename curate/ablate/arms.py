"""Which rows each arm trains on: chosen once, before anything is trained, out of candidates that are in no evaluation."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.ablate.settings import AblateSettings, Arm
from curate.catalog.sql import query
from curate.catalog.views import NO_POLICY, quoted
from curate.errors import IdentityError, SettingsError, UsageError
from curate.evaluate.items import image_hashes
from curate.filter.decide import kept_rows
from curate.filter.policy import load
from curate.score.reserve import reserved
from curate.shards.selection import COLUMNS, Selection
from curate.store import Pool

Places = NDArray[np.int64]
"""Numbers of lines of the candidates, ascending."""

SALT = "ablate"


@dataclass(frozen=True)
class Candidates:
    """Rows that an arm may train on, and those held out of all arms to evaluate on, in (part, row) order."""

    pool: Path
    rows: pa.Table
    held_out: pa.Table

    def selection(self, places: Places, seed: int) -> Selection:
        """Some of the candidates as training samples."""
        return Selection(self.pool, self.rows.take(pa.array(places)), seed=seed)

    def random(self, count: int, seed: int) -> Places:
        """As many of the candidates, drawn by the seed; a smaller draw is a subset of a larger one."""
        return np.sort(np.random.default_rng(seed).permutation(self.rows.num_rows)[:count])


def candidates(pool: Pool, settings: AblateSettings) -> Candidates:
    """All rows with an image that satisfy the condition, without those of the evaluation. Raises UsageError when none are left.

    Held out of the pool's own rows are whole duplicate groups, by hash; of a file's, rows with equal bytes.
    """
    swept = {arm.sweep.column for arm in settings.arms.values() if arm.sweep}
    columns = [*COLUMNS.names, "image_sha256", *(f"{quoted(name)}::DOUBLE AS {quoted(_swept(name))}" for name in sorted(swept))]
    found = query(
        pool,
        f"SELECT part, row, {', '.join(columns)}, sha256, coalesce(group_id, image_sha256) AS same FROM samples"
        f" WHERE reason IS NULL AND tar_file IS NOT NULL AND ({settings.candidates}\n) ORDER BY part, row",
        NO_POLICY,
    )
    out = np.array(list(_evaluated(found, settings)), bool)
    shown = pc.is_in(found["image_sha256"], value_set=found["image_sha256"].filter(pa.array(out)).combine_chunks())
    rows = found.filter(pa.array(~out & ~shown.to_numpy()))  # a picture may stand in rows of which only some have a group
    if not rows.num_rows:
        raise UsageError(f"no row of this pool has an image and satisfies  candidates: {settings.candidates}")
    return Candidates(pool.path, rows, found.filter(pa.array(out)))


def _evaluated(found: pa.Table, settings: AblateSettings) -> Iterator[bool]:
    """For each row, whether its image is in the evaluation."""
    if settings.held_out is not None:
        yield from (reserved(same, settings.held_out, SALT) for same in found["same"].to_pylist())
    elif settings.evaluate.data is not None:
        known = image_hashes(Path(settings.evaluate.data))
        yield from (not known.isdisjoint(pair) for pair in zip(found["sha256"].to_pylist(), found["image_sha256"].to_pylist(), strict=True))
    else:
        raise UsageError(
            "nothing to evaluate on: name WebDataset tars (jpg, txt, cls.txt) with  evaluate.data=FOLDER,"
            " or keep a share of the pool's own rows out of training with  held_out=0.1"
        )


def chosen(pool: Pool, among: Candidates, settings: AblateSettings) -> dict[str, list[Places]]:
    """Arm -> the rows that it keeps, seed after seed; a sweep is an arm for each fraction.

    A policy with a parameter `seed` that the arm does not set is drawn anew for each seed. Raises UsageError, SettingsError.
    """
    found: dict[str, list[Places]] = {}
    for name, arm in settings.arms.items():
        try:
            more = _swept_arms(among, name, arm, settings) if arm.sweep else {name: _kept(pool, among, name, arm, settings.seeds)}
        except (SettingsError, IdentityError) as error:
            raise type(error)(f"arm {name}: {error}") from None
        if twice := more.keys() & found.keys():
            raise SettingsError(f"two arms are called {min(twice)!r}: call one of them something else")
        found |= more
    for name, kept in found.items():
        fewest = min(len(places) for places in kept)
        if fewest < settings.train.batch_size:
            raise UsageError(
                f"arm {name} keeps {fewest:,} of {among.rows.num_rows:,} candidates, less than train.batch_size={settings.train.batch_size}"
            )
    return found


def _swept_arms(among: Candidates, name: str, arm: Arm, settings: AblateSettings) -> dict[str, list[Places]]:
    assert arm.sweep is not None
    values = among.rows[_swept(arm.sweep.column)].to_numpy(zero_copy_only=False).astype(np.float64)
    names = among.rows["sample_id"].to_numpy(zero_copy_only=False)
    have = np.flatnonzero(np.isfinite(values))
    ranked = have[np.lexsort((names[have], -values[have]))]
    counts = {share: math.floor(Fraction(str(share)) * len(have) + Fraction(1, 2)) for share in arm.sweep.fractions}
    return {f"{name}@{share:g}": [np.sort(ranked[:count])] * settings.seeds for share, count in counts.items()}


def _kept(pool: Pool, among: Candidates, name: str, arm: Arm, seeds: int) -> list[Places]:
    asked = arm.filter_settings(name)
    if not (asked.policy and "seed" in load(asked).parameters and "seed" not in asked.parameters):
        return [_places(among, kept_rows(pool, asked))] * seeds
    drawn = [asked.model_copy(update={"parameters": {**asked.parameters, "seed": seed}}) for seed in range(seeds)]
    return [_places(among, kept_rows(pool, one)) for one in drawn]


def _places(among: Candidates, kept: pa.Table) -> Places:
    return np.flatnonzero(np.isin(_keys(among.rows), _keys(kept), assume_unique=True))


def _keys(rows: pa.Table) -> NDArray[np.int64]:
    return np.asarray((rows["part"].to_numpy().astype(np.int64) << 32) + rows["row"].to_numpy())


def _swept(column: str) -> str:
    return f"swept {column}"


def digest_of(rows: pa.Table) -> str:
    """Fingerprint of held-out rows: their images and captions."""
    sink = hashlib.sha256()
    for line in zip(rows["image_sha256"].to_pylist(), rows["caption"].to_pylist(), strict=True):
        sink.update(repr(line).encode())
    return sink.hexdigest()
