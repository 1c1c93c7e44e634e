"""One URL's story: from its line in the input list to its place in a shard."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from curate.catalog.sql import printable
from curate.catalog.views import NO_POLICY, connect, policies, quoted
from curate.errors import REASONS, UsageError
from curate.store import Pool

NAMED_MEMBERS = 5
_QUIET = ("part", "row", "basis", "reason", "embedding_file")


@dataclass(frozen=True)
class Event:
    """One thing that happened to a row; `facts` holds the columns behind the sentence."""

    sample_id: str
    phase: str
    text: str
    facts: Mapping[str, object]

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return dataclasses.asdict(self)


def history(pool: Pool, url_or_sample_id: str) -> list[Event]:
    """Everything that the pool knows about a URL, a sample_id or a url_id, row by row, in the order it happened.

    A URL with several captions has several rows. Raises UsageError when no row matches.
    """
    with connect(pool, NO_POLICY) as connection:
        matches = _matches(connection, url_or_sample_id.strip())
        if not matches:
            raise UsageError(f"no row of this pool has the URL, sample_id or url_id {url_or_sample_id!r}")
        return [event for line in matches for event in _events(pool, connection, line)]


def text(events: Sequence[Event]) -> str:
    """Lines for a terminal: one block per row."""
    lines: list[str] = []
    for number, event in enumerate(events):
        if number == 0 or events[number - 1].sample_id != event.sample_id:
            lines.append(event.sample_id)
        lines.append(f"  {event.phase:<10} {printable(event.text)}")
    return "\n".join(lines) + "\n"


def _matches(connection: duckdb.DuckDBPyConnection, wanted: str) -> list[dict[str, Any]]:
    """Rows by key or address; a fragment is no part of an address, and input lists may have been spelt differently."""
    spelt = [name for name in _columns(connection, "rows") if name.lower() in ("source.url", "source.image_url", "source.link")]
    also = "".join(f" OR CAST({quoted(name)} AS VARCHAR) = $wanted" for name in spelt)
    sql = f'FROM "rows" WHERE sample_id = $wanted OR url_id = $wanted OR url IN ($wanted, $bare){also} ORDER BY part, row'
    return _lines(connection, sql, {"wanted": wanted, "bare": wanted.split("#", 1)[0]})


def _events(pool: Pool, connection: duckdb.DuckDBPyConnection, line: Mapping[str, Any]) -> Iterator[Event]:
    key = {"part": line["part"], "row": line["row"]}
    name = str(line["sample_id"] or f"part {line['part']}, row {line['row']}")
    place = f"{line['source_file']}, row {line['source_row']}: {line['url']} “{line['caption'] or ''}”"
    yield Event(name, "plan", place + _because(line["reason"]), _facts(line))
    for table in [found for found in _tables(pool) if found in pool.tables()]:
        found = _lines(connection, f"FROM {quoted(table)} WHERE part = $part AND row = $row", key)
        for facts in found:
            sentence = _sentence(connection, table, facts)
            if sentence:
                yield Event(name, _phase_of(table), sentence, _facts(facts))
        if not found and table in ("fetched", *_scores(pool)):
            yield Event(name, _phase_of(table), "not yet", {})
    yield from _packed(pool, connection, name, key)


def _tables(pool: Pool) -> list[str]:
    groups = [name for name in pool.tables() if name.startswith("groups_")]
    return ["decisions_prefilter", "fetched", "telemetry_fetch", *_scores(pool), *groups, *(f"decisions_{name}" for name in policies(pool))]


def _scores(pool: Pool) -> list[str]:
    return [name for name in pool.tables() if name.startswith("scores_")]


def _phase_of(table: str) -> str:
    if table in ("decisions_prefilter", "fetched", "telemetry_fetch"):
        return {"decisions_prefilter": "prefilter"}.get(table, "fetch")
    return {"scores": "score", "groups": "dedupe", "decisions": "filter"}[table.split("_", 1)[0]]


def _sentence(connection: duckdb.DuckDBPyConnection, table: str, facts: Mapping[str, Any]) -> str:
    phase, name = _phase_of(table), table.split("_", 1)[-1]
    if table == "telemetry_fetch":
        requests = f"{facts['attempts']} request{'' if facts['attempts'] == 1 else 's'}"
        return f"{requests}, {facts['bytes_read'] or 0:,} bytes, done {facts['finished_at']}" if facts["attempts"] else ""
    if phase == "prefilter":
        return "passed" if facts["keep"] else "refused" + _because(facts["reason"])
    if phase == "fetch":
        return _fetch_sentence(facts)
    if phase == "score":
        scores = [
            f"{key} {_short(value)}" for key, value in facts.items() if not (value is None or isinstance(value, bytes) or key in _QUIET)
        ]
        return f"{name}: {', '.join(scores) or 'nothing'}" + _because(facts["reason"])
    if phase == "dedupe":
        return _group_sentence(connection, table, facts)
    return f"{name}: " + ("kept" if facts["keep"] else "undecided" if facts["keep"] is None else "dropped") + _failed(facts)


def _fetch_sentence(facts: Mapping[str, Any]) -> str:
    status = f"status {facts['http_status']}, " if facts["http_status"] else ""
    if facts["reason"] is not None:
        signal = f" ({facts['signal']}: {facts['signal_value']})" if facts["signal"] else ""
        return f"{status}no image{_because(facts['reason'])}{signal}"
    moved = f", redirected to {facts['final_url']}" if facts["final_url"] else ""
    size = f"{facts['original_width']}×{facts['original_height']} {facts['original_format']}, {facts['original_bytes'] or 0:,} bytes"
    return f"{status}{size}{moved}; {facts['tar_size']:,} bytes at {facts['tar_offset']:,} of {facts['tar_file']}"


def _group_sentence(connection: duckdb.DuckDBPyConnection, table: str, facts: Mapping[str, Any]) -> str:
    if facts["group_id"] is None:
        return "no duplicates" if facts["group_size"] else ""
    sql = f'SELECT url FROM {quoted(table)} JOIN "rows" USING (part, row) WHERE group_id = $group ORDER BY part, row LIMIT {NAMED_MEMBERS}'
    members = [line["url"] for line in _lines(connection, sql, {"group": facts["group_id"]})]
    return f"one of {facts['group_size']} ({facts['match']}) in group {facts['group_id']}: {', '.join(members)}"


def _failed(facts: Mapping[str, Any]) -> str:
    return f"; fails {', '.join(facts['failed_rules'])}" if facts["failed_rules"] else ""


def _because(reason: object) -> str:
    known = REASONS.get(str(reason))
    return "" if reason is None else f" → {reason}" + (f": {known.text}" if known else "")


def _packed(pool: Pool, connection: duckdb.DuckDBPyConnection, name: str, key: Mapping[str, int]) -> Iterator[Event]:
    if "shards" not in pool.tables():
        return
    for facts in _lines(connection, "FROM shards WHERE part = $part AND row = $row ORDER BY subset", key):
        members = ", ".join(f".{member['extension']} at {member['offset']:,}" for member in facts["members"] or [])
        yield Event(name, "pack", f"{facts['subset']}: shard {facts['shard']}, position {facts['position']}; {members}", _facts(facts))


def _short(value: object) -> object:
    return round(value, 4) if isinstance(value, float) else value


def _facts(line: Mapping[str, Any]) -> dict[str, object]:
    return {key: value for key, value in line.items() if value is not None and key != "basis"}


def _columns(connection: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    return [str(line[0]) for line in connection.execute(f"DESCRIBE {quoted(table)}").fetchall()]


def _lines(connection: duckdb.DuckDBPyConnection, sql: str, values: Mapping[str, object]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = connection.sql(sql, params=dict(values)).to_arrow_table().to_pylist()
    return found
