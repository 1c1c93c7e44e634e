"""Where a policy cuts: comparisons of a measured value with a number, read off the policy's SQL."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from curate.catalog.subsets import Subset

_FAILS = {
    "COMPARE_LESSTHAN": "<",
    "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
}
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_NEGATED = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}


@dataclass(frozen=True)
class Cut:
    """One threshold: a row fails `rule` where `expression` `operator` `value`; `expression` is SQL over `samples`."""

    rule: str
    expression: str
    operator: str  # < <= > >=
    value: float

    @property
    def fails_below(self) -> bool:
        """Whether low values fail."""
        return self.operator.startswith("<")


def cuts_of(connection: duckdb.DuckDBPyConnection, subset: Subset) -> list[Cut]:
    """The numeric cuts of a policy, in the order of its rules; none when its SQL cannot be taken apart."""
    if not subset.policy_text:
        return []
    found = connection.execute("SELECT json_serialize_sql(?)", [subset.policy_text]).fetchall()
    tree = json.loads(found[0][0])
    if tree["error"]:
        return []
    reader = _Reader(subset.policy_text.encode(), subset.parameters)
    items = tree["statements"][0].get("node", {}).get("select_list", [])
    cuts = [cut for item in items for cut in reader.cuts(str(item.get("alias", "")), item, False)]
    return [cut for number, cut in enumerate(cuts) if cut not in cuts[:number]]


class _Reader:
    """Walks DuckDB's syntax tree; expressions are cut out of the policy's own text."""

    def __init__(self, text: bytes, parameters: Mapping[str, object]) -> None:
        self._text, self._parameters = text, parameters

    def cuts(self, rule: str, node: Any, negated: bool) -> Iterator[Cut]:
        """All cuts below a node; `negated` tells whether it stands under an odd number of NOTs."""
        if isinstance(node, list):
            for child in node:
                yield from self.cuts(rule, child, negated)
        elif isinstance(node, dict):
            if node.get("type") in _FAILS:
                yield from self._comparison(rule, node, negated)
                return
            inside = negated != (node.get("type") == "OPERATOR_NOT")
            for child in node.values():
                yield from self.cuts(rule, child, inside)

    def _comparison(self, rule: str, node: Mapping[str, Any], negated: bool) -> Iterator[Cut]:
        operator, left, right = _FAILS[node["type"]], node["left"], node["right"]
        if self._number(left) is not None or _factor(left):
            left, right, operator = right, left, _MIRRORED[operator]
        divisor = ""
        number = self._number(right)
        for known, other in _factor(right):
            if number is None and self._number(known) is not None:
                number, divisor = self._number(known), self._source(other)
        expression = self._source(_unwrapped(left))
        if number is None or not expression or self._number(left) is not None:
            return
        measured = f"{expression} / nullif({divisor}, 0)" if divisor else expression
        yield Cut(rule, measured, _NEGATED[operator] if negated else operator, number)

    def _number(self, node: Mapping[str, Any]) -> float | None:
        """The value of a parameter or constant; None for anything else."""
        if node.get("class") == "PARAMETER":
            given = self._parameters.get(str(node.get("identifier")))
        elif node.get("class") in ("CONSTANT", "CAST"):
            given = self._source(node)
        else:
            return None
        try:
            return float(str(given))
        except ValueError:
            return None

    def _source(self, node: Mapping[str, Any]) -> str:
        start, length = node.get("query_location"), node.get("query_location_length")
        if start is None or length is None:
            return ""
        return " ".join(self._text[start : start + length].decode(errors="replace").split())


def _unwrapped(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """What stands first in a coalesce: the default of a missing value is no measurement."""
    children = node.get("children") or []
    return children[0] if node.get("type") == "OPERATOR_COALESCE" and children else node


def _factor(node: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Both ways to read a product as (number, expression)."""
    if node.get("function_name") != "*" or len(node.get("arguments") or []) != 2:
        return []
    first, second = (argument["expression"] for argument in node["arguments"])
    return [(first, second), (second, first)]
