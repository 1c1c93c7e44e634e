"""A condition typed in place of a policy file becomes a policy with one rule for each of its AND-ed parts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import duckdb

from curate.errors import SettingsError
from curate.filter.policy import Policy, Value, checked_name
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


def row_wise(connection: duckdb.DuckDBPyConnection, sql: str, values: Mapping[str, Value], more: str) -> str | None:
    """The SELECT with its values in it and the columns `more` added; None where it looks at more than a row at a time, or may do so.

    What is left has an answer for each row of `samples` by itself, and the same one each time it is asked.
    """
    answer = _query(connection, "SELECT json_serialize_sql(?)", sql)
    node = answer["statements"][0]["node"] if not answer["error"] else {}
    table = node.get("from_table") or {}
    plain = {key for key, value in node.items() if value not in (None, [], {"map": []}, False)} <= _PLAIN
    if not plain or table.get("type") != "BASE_TABLE" or _path(table) != ["samples"] or table.get("sample"):
        return None
    if table.get("column_name_alias") or [_column(entry) for entry in node["select_list"][:2]] != ["part", "row"]:
        return None  # whoever computes keys is asked whether they are those of the rows
    kinds, functions = set[str](), set[str]()
    _used(node["select_list"], kinds, functions)
    scalar = {str(name) for (name,) in connection.execute(_BY_ROW).fetchall()}
    if not kinds <= _BY_ROW_KINDS or not functions <= scalar:
        return None
    _fill(node["select_list"], {name: _select_list(connection, _literal(value))[0] for name, value in values.items()})
    node["select_list"] += _select_list(connection, more)
    found = connection.execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(answer)]).fetchone()
    return None if found is None else str(found[0])


def _path(table: Mapping[str, Any]) -> list[str]:
    """Names of a table from the outermost on; DuckDB before 2.0 spells them apart."""
    found = table.get("qualified_name")
    return list(found["path"]) if found else [name for name in (table.get("schema_name"), table.get("table_name")) if name]


def _column(entry: Mapping[str, Any]) -> str | None:
    """The column that stands here under its own name."""
    name = entry["column_names"][-1].lower() if entry.get("class") == "COLUMN_REF" and entry.get("column_names") else None
    return name if entry.get("alias") in ("", None, name) else None


def _select_list(connection: duckdb.DuckDBPyConnection, columns: str) -> list[Any]:
    return list(_query(connection, "SELECT json_serialize_sql(?)", f"SELECT {columns}")["statements"][0]["node"]["select_list"])


def _literal(value: Value) -> str:
    """The value as SQL, in the type that it has as a parameter."""
    text = value if isinstance(value, str) else repr(value)
    return f"CAST('{text.replace(chr(39), 2 * chr(39))}' AS {'VARCHAR' if isinstance(value, str) else 'DOUBLE'})"


def _fill(node: Any, values: Mapping[str, Any]) -> None:
    """Puts expressions in the place of parameters."""
    for child in node if isinstance(node, list) else node.values() if isinstance(node, dict) else ():
        _fill(child, values)
    if isinstance(node, dict) and node.get("class") == "PARAMETER":
        alias, found = node["alias"], values[node["identifier"]]
        node.clear()
        node.update({**found, "alias": alias})


_PLAIN = {"type", "select_list", "from_table", "aggregate_handling"}
_BY_ROW_KINDS = {
    "COLUMN_REF",
    "CONSTANT",
    "PARAMETER",
    "FUNCTION",
    "OPERATOR",
    "CASE",
    "CAST",
    "COMPARISON",
    "CONJUNCTION",
    "BETWEEN",
    "LAMBDA",
}
_BY_ROW = """
    SELECT function_name FROM duckdb_functions() GROUP BY function_name
    HAVING bool_and(function_type = 'scalar' AND stability = 'CONSISTENT' AND internal)"""


def _used(node: Any, kinds: set[str], functions: set[str]) -> None:
    """Kinds of all expressions below, and names of all functions."""
    for child in node if isinstance(node, list) else node.values() if isinstance(node, dict) else ():
        _used(child, kinds, functions)
    if isinstance(node, dict):
        kinds.update([node["class"]] if "class" in node else [])
        functions.update([str(node["function_name"]).lower()] if "function_name" in node else [])


def _collect(node: Any, found: set[str]) -> None:
    if isinstance(node, list):
        for child in node:
            _collect(child, found)
    elif isinstance(node, dict):
        found.update(str(name).lower() for name in node.get("column_names") or ())
        found.update([str(node["table_name"]).lower()] if node.get("table_name") else [])
        for child in node.values():
            _collect(child, found)
