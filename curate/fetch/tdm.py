"""The file `/.well-known/tdmrep.json`, in which a host reserves its rights of text and data mining.

TDMRep (W3C Community Group report, 10 May 2024): an array of objects with `location` (a path with `*` and `$`, as in
robots.txt), `tdm-reservation` (0 or 1) and `tdm-policy`; the first object whose location matches counts, and a
TDM-Reservation header of the answer itself counts more than the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from curate.fetch.consent import MAX_VALUE_CHARACTERS, OptOut
from curate.fetch.robots import matcher

PATH = "/.well-known/tdmrep.json"
SIGNAL = "tdmrep.json"
_MAX_OBJECTS = 1000


@dataclass(frozen=True)
class _Entry:
    matches: Callable[[str], bool]
    reserved: bool
    text: str


@dataclass(frozen=True)
class Reservations:
    """What one tdmrep.json says."""

    entries: tuple[_Entry, ...] = ()

    @property
    def characters(self) -> int:
        """Size of the reservations."""
        return sum(len(entry.text) for entry in self.entries)

    def opt_out(self, url: str) -> OptOut | None:
        """The reservation that holds for `url`, or None."""
        for entry in self.entries:
            if entry.matches(url):
                return OptOut(SIGNAL, entry.text) if entry.reserved else None
        return None


def parse(text: str) -> Reservations:
    """Reservations of a file; whatever is not as the report says is passed over."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return Reservations()
    objects = found if isinstance(found, list) else [found]
    return Reservations(tuple(entry for item in objects[:_MAX_OBJECTS] if (entry := _entry(item))))


def _entry(item: object) -> _Entry | None:
    if not isinstance(item, dict):
        return None
    location, reservation = item.get("location"), str(item.get("tdm-reservation")).strip()
    if not isinstance(location, str) or not location.strip() or reservation not in ("0", "1"):
        return None
    if any("\ud800" <= sign <= "\udfff" for sign in location):  # half a character, which JSON can escape and no URL has
        return None
    text = json.dumps({name: item[name] for name in ("location", "tdm-reservation", "tdm-policy") if name in item})
    return _Entry(matcher(" ".join(location.split())), reservation == "1", text[:MAX_VALUE_CHARACTERS])
