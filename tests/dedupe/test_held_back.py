"""On pictures by which no threshold was set: copies are found, and little else; what was judged by eye stays as it was judged."""

from __future__ import annotations

import pytest

from curate.dedupe.settings import DedupeSettings
from curate.errors import UsageError
from tests.bench.sheet import merged
from tests.dedupe.planted import clipart, found_by_kind, photos, reviewed

pytestmark = pytest.mark.long


def real_pictures() -> list[tuple[str, bytes]]:
    """The demo's clipart; skips where it cannot be downloaded."""
    try:
        return list(clipart())
    except UsageError as error:
        pytest.skip(str(error))


def test_copies_of_photo_like_pictures() -> None:
    for kind, found in found_by_kind(photos(range(50_000, 50_060))).items():
        assert found.copies == 60 and found.recall >= (1.0 if kind == "exact" else 0.98) and found.precision >= 0.995, (kind, found)


def test_what_was_judged_by_eye() -> None:
    """Column `merged` says what the code does today: a change of it is looked at, and a picture's verdict stays."""
    lines = [(line["merged"] == "yes", frozenset(line["pictures"].split())) for line in reviewed()]
    named = frozenset[str]().union(*(names for _, names in lines))
    groups = [frozenset(one) for one in merged([one for one in real_pictures() if one[0] in named], DedupeSettings())]
    assert [names for said, names in lines if any(names <= one for one in groups) != said] == []
