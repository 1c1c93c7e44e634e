"""Which input column means what: given by hand, by a known layout, or guessed; and the names columns get in the pool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from curate.errors import InputError
from curate.plan.portable import FORBIDDEN
from curate.plan.settings import InputSettings
from curate.schema import SOURCE_PREFIX, nearest

ROW_MEANINGS = ("url", "caption", "label")


@dataclass(frozen=True)
class Layout:
    """A published list's columns: those that mean something, and those by which it is recognised."""

    title: str
    url: str
    caption: str
    marks: tuple[str, ...]


LAYOUTS = {
    "datacomp": Layout("DataComp", "url", "text", ("uid", "url", "text", "original_width")),
    "laion": Layout("LAION", "URL", "TEXT", ("URL", "TEXT")),
    "coyo": Layout("COYO", "url", "text", ("id", "url", "text", "image_phash")),
    "cc3m": Layout("CC3M", "url", "caption", ()),
    "cc12m": Layout("CC12M", "url", "caption", ()),
}
_GUESSES = {
    "url": ("url", "image_url", "imageurl", "img_url", "link", "image_link", "uri", "image"),
    "caption": ("caption", "text", "alt", "alt_text", "title", "description"),
    "label": ("label", "class_name"),
}


@dataclass(frozen=True)
class ColumnMapping:
    """Meaning -> input column, and how that was found out (`detected LAION list: URL → url, TEXT → caption`)."""

    origin: str
    columns: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        told = [f"{column} → {meaning}" for meaning, column in self.columns.items()]
        without = [] if "caption" in self.columns else ["no captions"]
        return f"{self.origin}: {', '.join(told + without)}"

    def of(self, names: Iterable[str], meaning: str) -> str | None:
        """The column among `names` that has this meaning; case is ignored where nothing matches exactly."""
        column = self.columns.get(meaning)
        return None if column is None else match_name(column, names)


def match_name(wanted: str, names: Iterable[str]) -> str | None:
    """`wanted`, or the first name that differs from it by case alone."""
    known = list(names)
    if wanted in known:
        return wanted
    return next((name for name in known if name.lower() == wanted.lower()), None)


def detect(file: str, names: Sequence[str], layout: str | None, settings: InputSettings) -> ColumnMapping:
    """Mapping for a list whose first file has these columns (and, headerless, this recognised layout).

    Raises InputError naming file, column, what there is and the nearest name.
    """
    given = settings.meanings
    for column in given.values():
        if match_name(column, names) is None:
            raise _missing(file, column, names)
    chosen = settings.preset if settings.preset in LAYOUTS else layout or _recognised(names, settings)
    if chosen is None:
        return _guessed(file, names, given, settings)
    title, known = LAYOUTS[chosen].title, {"url": LAYOUTS[chosen].url, "caption": LAYOUTS[chosen].caption}
    for meaning, column in known.items():
        if meaning not in given and match_name(column, names) is None:
            raise _missing(file, column, names)
    found = f"{title} list" if settings.preset == chosen else f"detected {title} list"
    return ColumnMapping(found, {**known, **_guess("label", names), **given})


def _recognised(names: Sequence[str], settings: InputSettings) -> str | None:
    if settings.preset != "auto":
        return None
    return next((key for key, layout in LAYOUTS.items() if layout.marks and set(layout.marks) <= set(names)), None)


def _guessed(file: str, names: Sequence[str], given: Mapping[str, str], settings: InputSettings) -> ColumnMapping:
    guesses = {} if settings.preset == "none" else {**_guess("url", names), **_guess("caption", names), **_guess("label", names)}
    columns = {**guesses, **given}
    if "url" not in columns:
        listed = ", ".join(repr(name) for name in names[:40])
        raise InputError(f"{file}: no column looks like a URL column (there are {listed}): set input.url_column=NAME")
    return ColumnMapping("columns as set" if set(given) >= set(columns) else "columns by name", dict(sorted(columns.items(), key=_order)))


def _order(item: tuple[str, str]) -> int:
    return {"url": 0, "caption": 1}.get(item[0], 2)


def _guess(meaning: str, names: Sequence[str]) -> dict[str, str]:
    found = next((name for guess in _GUESSES[meaning] if (name := match_name(guess, names)) is not None), None)
    return {} if found is None else {meaning: found}


def require(file: str, names: Sequence[str], mapping: ColumnMapping) -> None:
    """Raises InputError when a further file of the list lacks a column that has a meaning."""
    for meaning, column in mapping.columns.items():
        if mapping.of(names, meaning) is None:
            raise _missing(file, column, names)


def _missing(file: str, column: str, names: Sequence[str]) -> InputError:
    listed = ", ".join(repr(name) for name in names[:40]) or "none"
    return InputError(f"{file}: there is no column {column!r} (there are {listed}){nearest(column, list(names))}")


class Names:
    """Names that input columns get in the pool: `source.<name>`, distinct even where case is ignored.

    `known` are the names that the pool has already: a column of a further list takes the same one, whatever its case.
    """

    def __init__(self, mapping: ColumnMapping, known: Iterable[str] = ()) -> None:
        self._spelt = {name.lower(): name for name in known}
        self._meant = {column.lower(): meaning for meaning, column in mapping.columns.items() if meaning not in ROW_MEANINGS}
        self._by_key: dict[tuple[str, int], str] = {}
        self._taken = {meaning.lower() for meaning in self._meant.values()}

    def of_file(self) -> FileNames:
        """Names for the columns of one file; the same column of another file, whatever its case, gets the same."""
        return FileNames(self)

    def named(self, name: str, occurrence: int) -> str:
        """Pool name of the `occurrence`-th column of a file whose name is `name` when case is ignored."""
        key = (name.lower(), occurrence)
        if key not in self._by_key:
            meant = self._meant.get(name.lower()) if occurrence == 0 else None
            fresh = SOURCE_PREFIX + (meant or self._fresh(name))
            self._by_key[key] = self._spelt.get(fresh.lower(), fresh)
        return self._by_key[key]

    def _fresh(self, name: str) -> str:
        clean = "".join("_" if sign in FORBIDDEN or not sign.isprintable() else sign for sign in name) or "column"
        number, fresh = 1, clean
        while fresh.lower() in self._taken:
            number += 1
            fresh = f"{clean}_{number}"
        self._taken.add(fresh.lower())
        return fresh


class FileNames:
    """Pool names of one file's columns, in the order in which they are met."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._known: dict[str, str] = {}
        self._occurrences: Counter[str] = Counter()

    def __call__(self, name: str) -> str:
        """Pool name of a column."""
        if name not in self._known:
            self._known[name] = self._names.named(name, self._occurrences[name.lower()])
            self._occurrences[name.lower()] += 1
        return self._known[name]
