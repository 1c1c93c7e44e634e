"""Opt-outs in response headers: X-Robots-Tag as servers really send it, and TDM-Reservation.

Grammar after Google's "Robots meta tag, data-nosnippet, and X-Robots-Tag specifications": comma-separated rules, a
rule may be `name: value`, and an unknown name before a colon is a robot's, to whom the rest of that header line
applies. `noai` and `noimageai` are DeviantArt's (2022); TDM-Reservation is TDMRep (W3C Community Group, 2024).
"""

from __future__ import annotations

import datetime
import email.utils
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

_VALUED = frozenset({"max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"})
_NAMED = re.compile(r"\s*([^\s:,]+)\s*:\s*(.*)", re.DOTALL)
_TWO_DIGIT_YEAR = re.compile(r"(\d{1,2})-([A-Za-z]{3})-(\d{2,4})")
MAX_VALUE_CHARACTERS = 500
_MAX_DATE_CHARACTERS = 100  # else a header full of commas would be read as one date, again with every comma


@dataclass(frozen=True)
class OptOut:
    """The header that asks us not to use the resource, as stored with the row."""

    signal: str
    value: str


@dataclass(frozen=True)
class Rule:
    """One directive of a header line; `robot` is None when it addresses everyone."""

    robot: str | None
    name: str
    value: str = ""


def find_opt_out(
    robots_tags: Sequence[str],
    reservations: Sequence[str],
    directives: Iterable[str],
    robots: Iterable[str],
    today: datetime.date,
    reserved: OptOut | None = None,
) -> OptOut | None:
    """First opt-out that addresses one of our names (`robots`) or everyone, on day `today`; else None.

    `reserved` is what the host's own file says; a TDM-Reservation header of the answer counts more (TDMRep).
    """
    refused, names = {d.lower() for d in directives}, {r.lower() for r in robots}
    for line in robots_tags:
        if any((rule.robot is None or rule.robot in names) and _refuses(rule, refused, today) for rule in parse(line)):
            return OptOut("X-Robots-Tag", line[:MAX_VALUE_CHARACTERS])
    for line in reservations:
        if line.strip() == "1":
            return OptOut("TDM-Reservation", line[:MAX_VALUE_CHARACTERS])
    return None if any(line.strip() == "0" for line in reservations) else reserved


def _refuses(rule: Rule, refused: set[str], today: datetime.date) -> bool:
    if rule.name != "unavailable_after":
        return rule.name in refused
    moment = parse_date(rule.value)
    return moment is None or moment.date() < today  # an unreadable date is taken as a no


def parse(line: str) -> Iterator[Rule]:
    """Rules of one X-Robots-Tag line, in order, names in lower case."""
    robot: str | None = None
    items = line.split(",")
    position = 0
    while position < len(items):
        item = items[position]
        position += 1
        while (named := _NAMED.match(item)) and named[1].lower() not in _VALUED:
            robot, item = (None if named[1] == "*" else named[1].lower()), named[2]
        if named is None:
            yield from (Rule(robot, word.lower()) for word in item.replace(";", " ").split())
            continue
        name, value = named[1].lower(), named[2]
        while name == "unavailable_after" and position < len(items) and _continues_date(items[position], value):
            value += "," + items[position]
            position += 1
        yield Rule(robot, name, value.strip())


def _continues_date(item: str, so_far: str) -> bool:
    """A comma inside a date is followed by a day, a year or a time, never by a rule."""
    return len(so_far) < _MAX_DATE_CHARACTERS and bool(re.match(r"\s*\d", item)) and parse_date(so_far) is None


def parse_date(text: str) -> datetime.datetime | None:
    """A date as RFC 822, RFC 850 or ISO 8601; UTC unless it says otherwise; None when it is none of these."""
    text = text.strip().strip("\"'")
    if len(text) > _MAX_DATE_CHARACTERS:
        return None
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        try:
            moment = email.utils.parsedate_to_datetime(_TWO_DIGIT_YEAR.sub(_spaced_year, text))
        except (ValueError, IndexError, TypeError, OverflowError):  # OverflowError: a year of thirty digits
            return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    try:
        return moment.astimezone(datetime.UTC)
    except OverflowError:  # at an end of the calendar, beyond it in UTC
        end = datetime.datetime.max if moment.year > 5000 else datetime.datetime.min
        return end.replace(tzinfo=datetime.UTC)


def _spaced_year(match: re.Match[str]) -> str:
    year = int(match[3])
    return f"{match[1]} {match[2]} {year + 2000 if year < 70 else year + 1900 if year < 100 else year}"
