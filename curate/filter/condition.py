"""A condition typed in place of a policy file becomes a policy with one rule for each of its AND-ed parts."""

from __future__ import annotations

import json
from typing import Any

import duckdb

from curate.errors import SettingsError
from curate.filter.policy import Policy, checked_name
from curate.filter.settings import FilterSettings

NAME = "custom"


def from_condition(settings: FilterSettings) -> Policy:
    """The policy that keeps the rows for which `settings.where` is true; unknown (null) does not keep.

    `a AND b` becomes rule_1 and rule_2, so that the funnel tells them apart: a AND b is true exactly where both are.
    Raises SettingsError when the text is not one condition, or when values are given that it has no place for.
    """
    if settings.policy:
        raise SettingsError("give a policy or a condition (where=…), not both")
    if settings.parameters or settings.fractions or settings.mode != "absolute":
        raise SettingsError("a condition has its values in itself: parameters, fractions and mode=quantile belong to a policy file")
    parts = conjuncts(settings.where)
    rules = "".join(f",\n    NOT coalesce({part}, false) AS rule_{number}" for number, part in enumerate(parts, 1))
    return Policy(
        name=checked_name(settings.name or NAME),
        origin="where",
        text=f"SELECT\n    part,\n    row{rules}\nFROM samples\n",
        groups=settings.groups,
        representative=settings.representative,
    )


def conjuncts(condition: str) -> list[str]:
    """The top-level AND-ed parts of a SQL condition, as SQL. Raises SettingsError when it is not one condition."""
    with duckdb.connect() as connection:
        answer = _query(connection, "SELECT json_serialize_sql(?)", f"SELECT {condition}\n")
        if answer["error"]:
            raise SettingsError(f"where: {answer['error_message'].splitlines()[0]}")
        statements = answer["statements"]
        node = statements[0]["node"]
        if len(statements) != 1 or len(node.get("select_list", ())) != 1 or node["from_table"]["type"] != "EMPTY":
            raise SettingsError("where: write one condition, such as  clip_score > 0.3 AND image_min_side >= 200")
        whole = node["select_list"][0]
        children = whole["children"] if whole.get("type") == "CONJUNCTION_AND" else [whole]
        return [_as_text(connection, answer, child) for child in children]


def _as_text(connection: duckdb.DuckDBPyConnection, answer: dict[str, Any], expression: dict[str, Any]) -> str:
    """One expression of a parsed SELECT, written as SQL again."""
    expression["alias"] = ""
    answer["statements"][0]["node"]["select_list"] = [expression]
    found = connection.execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(answer)]).fetchone()
    assert found is not None
    return str(found[0]).removeprefix("SELECT ")


def _query(connection: duckdb.DuckDBPyConnection, sql: str, text: str) -> dict[str, Any]:
    found = connection.execute(sql, [text]).fetchone()
    assert found is not None
    return dict(json.loads(found[0]))


def names_read(sql: str) -> set[str] | None:
    """Names of all columns and tables that a SELECT mentions, in lower case; None when it cannot be told."""
    with duckdb.connect() as connection:
        answer = _query(connection, "SELECT json_serialize_sql(?)", sql)
    if answer["error"]:
        return None
    found: set[str] = set()
    _collect(answer, found)
    return found


def _collect(node: Any, found: set[str]) -> None:
    if isinstance(node, list):
        for child in node:
            _collect(child, found)
    elif isinstance(node, dict):
        found.update(str(name).lower() for name in node.get("column_names") or ())
        found.update([str(node["table_name"]).lower()] if node.get("table_name") else [])
        for child in node.values():
            _collect(child, found)
