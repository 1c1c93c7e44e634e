"""A policy file: one SELECT over `samples` with a BOOLEAN column per rule, and directives in its header comments.

    -- source: where the cuts come from                            (free text, may be repeated)
    -- requires: clip_vit_b_32_openai                              (the model column that the cuts are meant for)
    -- parameter: clip_cut = 0.30                                  ($clip_cut in the SQL; `quantile` for no fixed value)
    -- fraction: clip_cut keeps 0.30 of rows with an image by clip_score in clip_score_low
    -- fraction: near keeps 0.50 of rows left by clip_score_low by normsim_inf in normsim_low        (of what an earlier cut keeps)
    -- groups: pixels                                              (duplicate groups whose members compete)
    -- representative: original_width::BIGINT * original_height DESC, sample_id

True in a rule's column means that the row fails the rule; the column's name is the reason, the first one counts.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from curate.errors import REASONS, SettingsError
from curate.filter.settings import FilterSettings
from curate.schema import nearest, resources

NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
KEYS = ("source", "requires", "parameter", "fraction", "groups", "representative")
DENOMINATORS = {"rows with an image": "TRUE", "rows scored": "{column} IS NOT NULL"}
"""What a fraction may be a fraction of, as SQL over the rows that have an image and no reason of their own yet."""
LEFT_BY = "rows left by "
"""Begins a denominator that names the rule of an earlier fraction."""

POLICY_REASONS = (
    "caption_short", "caption_long", "caption_repeated", "caption_repetitive", "caption_non_words", "caption_boilerplate",
    "caption_no_determiner", "caption_rare_word", "caption_language", "image_small", "image_aspect", "image_large",
    "clip_score_low", "clip_score_missing", "nsfw", "watermark",
    "contaminated", "concept_none", "cluster_unnamed", "normsim_low", "sampled_out",
)  # fmt: skip
"""Reasons of `REASONS` that a rule may be named after; the others are not a policy's to give."""

Value = float | str


@dataclass(frozen=True)
class Fraction:
    """Says which share a cut is to keep: the highest `fraction` of `denominator` by `column`; the rest fails `rule`."""

    parameter: str
    fraction: float
    denominator: str
    column: str
    rule: str

    @property
    def after(self) -> str | None:
        """The rule whose survivors this is a share of, where it is of one."""
        return self.denominator.removeprefix(LEFT_BY) if self.denominator.startswith(LEFT_BY) else None


@dataclass(frozen=True)
class Policy:
    """A parsed policy; `parameters` without a value take this pool's quantile."""

    name: str
    origin: str  # what error messages call it: the file, or `where`
    text: str
    sources: tuple[str, ...] = ()
    requires: str | None = None
    parameters: Mapping[str, Value | None] = field(default_factory=dict)
    fractions: tuple[Fraction, ...] = ()
    groups: str = ""
    representative: str = ""

    @property
    def sha256(self) -> str:
        """Of the file's text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def shipped() -> list[str]:
    """Names of the policies that come with curate."""
    return sorted(path.stem for path in (resources("conf") / "policy").glob("*.sql"))


def find(policy: str) -> Path:
    """The file of a shipped policy's name, or of a path to a .sql file. Raises SettingsError."""
    path = Path(policy)
    if path.suffix == ".sql":
        if path.is_file():
            return path
        raise SettingsError(f"there is no policy file {policy!r}")
    if policy in shipped():
        return resources("conf") / "policy" / f"{policy}.sql"
    if not policy:
        raise SettingsError(f"name a policy ({', '.join(shipped())} or the path of a .sql file), or give a condition as where=…")
    raise SettingsError(f"there is no policy {policy!r}{nearest(policy, shipped()) or '; shipped are ' + ', '.join(shipped())}")


def load(settings: FilterSettings) -> Policy:
    """The policy of the settings' file, their overrides applied. Raises SettingsError naming file, line and nearest name."""
    path = find(settings.policy)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read as a policy: {error}") from None
    return overridden(parse(checked_name(settings.name or path.stem), path.name, text), settings)


def parse(name: str, origin: str, text: str) -> Policy:
    """Reads the directives of a policy's header. Raises SettingsError naming the line."""
    found: dict[str, list[tuple[str, str]]] = {key: [] for key in KEYS}
    for where, key, value in _directives(origin, text):
        found[key].append((where, value))
    parameters = dict(_parameter(where, value) for where, value in found["parameter"])
    return Policy(
        name=name,
        origin=origin,
        text=text,
        sources=tuple(value for _, value in found["source"]),
        requires=_single(found["requires"]),
        parameters=parameters,
        fractions=_fractions(found["fraction"], parameters),
        groups=_single(found["groups"]) or "",
        representative=_single(found["representative"]) or "",
    )


def overridden(policy: Policy, settings: FilterSettings) -> Policy:
    """The policy with the settings' values in place of its own. Raises SettingsError for a name that it does not declare."""
    declared = list(policy.parameters)
    for given in (*settings.parameters, *settings.fractions):
        if given not in declared:
            known = f"; it has {', '.join(declared)}" if declared else "; it has none"
            raise SettingsError(f"{policy.origin} has no parameter {given!r}{nearest(given, declared) or known}")
    parameters = {name: _like(name, settings.parameters.get(name, value), value) for name, value in policy.parameters.items()}
    fractions = tuple(_resized(fraction, settings.fractions) for fraction in policy.fractions)
    stray = set(settings.fractions) - {fraction.parameter for fraction in fractions}
    if stray:
        raise SettingsError(f"{policy.origin} declares no fraction for {sorted(stray)[0]!r}")
    return Policy(
        policy.name, policy.origin, policy.text, policy.sources, policy.requires, parameters, fractions,
        settings.groups or policy.groups, settings.representative or policy.representative,
    )  # fmt: skip


def checked_name(name: str) -> str:
    """`name` when it can name a policy, its table and its subset. Raises SettingsError."""
    if not NAME.fullmatch(name) or name == "prefilter":
        raise SettingsError(f"{name!r} cannot name a policy: lower-case letters, digits and _, a letter first; not prefilter")
    return name


def checked_rule(name: str, origin: str) -> str:
    """`name` when a rule may have it. Raises SettingsError."""
    if not NAME.fullmatch(name):
        raise SettingsError(f"{origin}: a rule cannot be called {name!r}: lower-case letters, digits and _, a letter first")
    if name in REASONS and name not in POLICY_REASONS:
        raise SettingsError(f"{origin}: {name!r} is not a policy's reason ({REASONS[name].text}): call the rule something else")
    return name


def user_reasons(rules: tuple[str, ...]) -> list[str]:
    """Rules whose names are not in curate's own list of reasons."""
    return [rule for rule in rules if rule not in REASONS]


# -- directives


def _directives(origin: str, text: str) -> Iterator[tuple[str, str, str]]:
    """(where, key, value) of each directive in the comment lines before the SELECT."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("--"):
            return
        found = re.match(r"\s*--\s*(\w+)\s*:\s*(.+?)\s*$", line)
        if found is None:
            continue
        where, key = f"{origin}, line {number}", found[1]
        if key in KEYS:
            yield where, key, found[2]
        elif meant := difflib.get_close_matches(key.lower(), KEYS, 1, 0.75):
            raise SettingsError(f"{where}: unknown directive {key!r}; did you mean {meant[0]!r}?")


def _single(values: list[tuple[str, str]]) -> str | None:
    if len(values) > 1:
        raise SettingsError(f"{values[1][0]}: this directive may stand only once")
    return values[0][1] if values else None


def _parameter(where: str, value: str) -> tuple[str, Value | None]:
    found = re.fullmatch(r"(\w+)\s*=\s*(.+)", value)
    if found is None:
        raise SettingsError(f"{where}: write  parameter: NAME = VALUE")
    if quoted := re.fullmatch(r"'(.*)'", found[2]):
        return found[1], quoted[1]
    return found[1], None if found[2] == "quantile" else _number(where, found[2])


def _fractions(lines: list[tuple[str, str]], parameters: Mapping[str, Value | None]) -> tuple[Fraction, ...]:
    found: list[Fraction] = []
    for where, value in lines:
        one, before = _fraction(where, value, parameters), [fraction.rule for fraction in found]
        if one.after is not None and one.after not in before:
            raise SettingsError(f"{where}: no fraction above is in rule {one.after!r}{nearest(one.after, before)}")
        found.append(one)
    return tuple(found)


def _fraction(where: str, value: str, parameters: Mapping[str, Value | None]) -> Fraction:
    found = re.fullmatch(r"(\w+) keeps ([0-9.]+) of (.+) by (\w+) in (\w+)", value)
    if found is None:
        raise SettingsError(f"{where}: write  fraction: PARAMETER keeps 0.30 of rows with an image by COLUMN in RULE")
    if found[1] not in parameters:
        raise SettingsError(f"{where}: parameter {found[1]!r} is not declared{nearest(found[1], list(parameters))}")
    if found[3] not in DENOMINATORS and not found[3].startswith(LEFT_BY):
        raise SettingsError(f"{where}: a fraction is of {' or of '.join(DENOMINATORS)} or of {LEFT_BY}RULE, not of {found[3]!r}")
    return Fraction(found[1], _share(where, _number(where, found[2])), found[3], found[4], found[5])


def _resized(fraction: Fraction, given: Mapping[str, float]) -> Fraction:
    share = _share(f"fractions.{fraction.parameter}", given.get(fraction.parameter, fraction.fraction))
    return Fraction(fraction.parameter, share, fraction.denominator, fraction.column, fraction.rule)


def _like(name: str, given: Value | None, declared: Value | None) -> Value | None:
    """A value in the type of the declared one: numbers come from a command line as text."""
    return given if given is None or isinstance(declared, str) else _number(name, given)


def _number(where: str, value: Value) -> float:
    try:
        return float(value)
    except ValueError:
        raise SettingsError(f"{where}: {value!r} is not a number") from None


def _share(where: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise SettingsError(f"{where}: a fraction is between 0 and 1, not {value}")
    return value
