"""Settings: conf/ files and `key=value` overrides become frozen, strict, typed models.

Defaults stand in the models, beside the code they configure. A file in `conf/` only says what differs; Hydra's compose
merges a recipe, the groups that are named (`engine=local`) and dotted overrides, and does nothing else: no
interpolation, no `_target_`, no defaults lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from curate.errors import SettingsError

GROUPS = ("engine", "train", "evaluate", "log")
"""Keys that also take a name: that of a file in `conf/<key>/`."""

COMMAND_LINE = "the command line"

_KEY = re.compile(r"[A-Za-z_]\w*(\.[\w-]+)*")
_PLAIN_VALUE = re.compile(r"true|false|null|[-+]?\d+|[-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?|[\[{].*[\]}]", re.IGNORECASE | re.DOTALL)


class Settings(BaseModel):
    """Base of every settings model: immutable, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)  # a folder may be called 2024


AnySettings = TypeVar("AnySettings", bound=BaseModel)


class Composed(dict[str, Any]):
    """A composed tree of plain values that remembers in `origins` where each dotted key was said last."""

    def __init__(self, values: Mapping[str, Any], origins: Mapping[str, str]) -> None:
        super().__init__(values)
        self.origins = dict(origins)


def compose(recipe: str, overrides: Sequence[str] = (), kind: str = "recipe") -> Composed:
    """The values of `conf/<kind>/<recipe>.yaml`, or of a YAML file at that path, with overrides applied in order.

    An override is `key=value` with a dotted key. A value is a number, true, false, null, a [list], a {mapping}, or text as
    it stands. Where a key of `GROUPS` is given a name (`engine=local`, in the file or as an override), it takes the values
    of that file. Raises SettingsError.
    """
    file = _chosen_file(kind, recipe)
    read = _read(file)
    parsed = [_split(override) for override in overrides]
    chosen_names = {key: str(value) for key, value in [*read.items(), *parsed] if _is_choice(key, value)}
    said = {key: _named_file(key, name) for key, name in chosen_names.items()}
    origins = {key: _shown(file) for key in read if key not in said}
    origins |= {f"{key}.{below}": _shown(chosen) for key, chosen in said.items() for below in _read(chosen)}
    origins |= {key: COMMAND_LINE for key, _ in parsed if key not in said}
    choices = [f"+{key}={name}" for key, name in chosen_names.items()]
    plain = [_hydra_override(key, value) for key, value in parsed if not _is_choice(key, value)]
    return Composed(_hydra(file.parent, file.stem, [*choices, *plain]), origins)


def group(key: str, name: str) -> dict[str, Any]:
    """The values of `conf/<key>/<name>.yaml`. Raises SettingsError."""
    return _tree(_named_file(key, name))


def values(overrides: Sequence[str]) -> Composed:
    """Overrides alone, as the tree of plain values that they say. Raises SettingsError."""
    parsed = [_split(override) for override in overrides]
    said = _hydra(_conf("recipe"), None, [_hydra_override(key, value) for key, value in parsed])
    return Composed(said, {key: COMMAND_LINE for key, _ in parsed})


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both trees in one; where both say something, `above` wins. Mappings are merged, all else is replaced."""
    result = dict(below)
    for key, value in above.items():
        under = result.get(key)
        result[key] = merged(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return result


def build(model: type[AnySettings], data: Mapping[str, Any]) -> AnySettings:
    """`data` as a checked `model`.

    Raises SettingsError: one line with the first wrong key, where it was said, what is allowed and the nearest key.
    """
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        raise SettingsError(_explain(error, model, getattr(data, "origins", {}))) from None


def names(group: str) -> list[str]:
    """Names of the files in `conf/<group>/`."""
    return sorted(path.stem for path in _conf(group).glob("*.yaml"))


def _conf(group: str) -> Path:
    from curate.schema import resources

    return resources("conf") / group


def _chosen_file(kind: str, chosen: str) -> Path:
    if chosen.endswith((".yaml", ".yml")):
        path = Path(chosen).absolute()
        if not path.is_file():
            raise SettingsError(f"{kind} file {chosen} does not exist")
        return path
    return _named_file(kind, chosen)


def _named_file(group: str, name: str) -> Path:
    path = _conf(group) / f"{name}.yaml"
    if not path.is_file():
        raise SettingsError(f"no {group} is called {name!r}; there are: {', '.join(names(group)) or 'none'}{_nearest(name, names(group))}")
    return path


def _is_choice(key: str, value: object) -> bool:
    return key in GROUPS and isinstance(value, str) and not value.startswith("{") and value != "null"


def _split(override: str) -> tuple[str, str]:
    key, equals, value = override.partition("=")
    if not equals or not _KEY.fullmatch(key):
        raise SettingsError(f"{override!r} is not an override: write  key=value  with a dotted key, for example  fetch.retries=2")
    if key.split(".")[0] == "hydra" or key == "recipe":
        raise SettingsError(f"{key!r} cannot be overridden")
    if "${" in value:
        raise SettingsError(f"{key}: interpolation (${{…}}) is not offered; write the value itself")
    return key, value


def _hydra_override(key: str, value: str) -> str:
    if _PLAIN_VALUE.fullmatch(value):
        return f"++{key}={value}"
    return f"++{key}={_quoted(value)}"


def _quoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" and text[0] not in text[1:-1]:
        text = text[1:-1]  # quotes that survived the shell: '"5"' is the text 5
    tail = len(text) - len(text.rstrip("\\"))
    escaped = re.sub(r"(\\*)'", lambda found: found.group(1) * 2 + "\\'", text[: len(text) - tail])
    return f"'{escaped}{chr(92) * 2 * tail}'"


def _hydra(folder: Path, name: str | None, overrides: list[str]) -> dict[str, Any]:
    """Hydra's compose of `folder/name.yaml` (None: of nothing) and overrides in Hydra's grammar."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    search = [f"hydra.searchpath=[{_quoted('file://' + str(_conf('engine').parent))}]"] if name else []
    try:
        with initialize_config_dir(str(folder), version_base="1.3"):
            config = hydra_compose(name, [*search, *overrides])
    except (HydraException, OmegaConfBaseException) as error:
        raise SettingsError(f"{name or COMMAND_LINE} with {' '.join(overrides)}: {str(error).splitlines()[0]}") from None
    return {str(key): value for key, value in dict(OmegaConf.to_container(config, resolve=False)).items()}  # type: ignore[arg-type]


def _tree(file: Path) -> dict[str, Any]:
    """What one file says."""
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        values = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except (YAMLError, OSError) as error:
        raise SettingsError(f"{_shown(file)}: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{_shown(file)} holds no  key: value  lines")
    return {str(key): value for key, value in values.items()}


def _read(file: Path) -> dict[str, Any]:
    """Dotted keys and values of one file, checked for what conf/ does not offer."""
    flat = dict(_leaves(_tree(file)))
    for key, value in flat.items():
        if key.split(".")[-1] == "_target_" or key.split(".")[0] == "defaults":
            raise SettingsError(f"{_shown(file)}: {key!r} is not offered; a file in conf/ holds values only")
        if isinstance(value, str) and "${" in value:
            raise SettingsError(f"{_shown(file)}: {key}: interpolation (${{…}}) is not offered; write the value itself")
    return flat


def _leaves(values: Mapping[Any, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _shown(file: Path) -> str:
    """The file as a person would name it: from conf/ on when it is one of ours."""
    shipped = _conf("recipe").parent
    return f"conf/{file.relative_to(shipped)}" if file.is_relative_to(shipped) else str(file)


def _explain(error: ValidationError, model: type[BaseModel], origins: Mapping[str, str]) -> str:
    found = error.errors(include_url=False)
    first, *others = sorted(found, key=lambda one: one["type"] != "extra_forbidden")  # a misspelt key explains one that is missing
    steps = [str(step) for step in first["loc"]]
    key, origin = ".".join(steps), _origin(".".join(steps), origins)
    more = f" ({len(others)} more)" if others else ""
    if first["type"] == "extra_forbidden":
        known = [".".join([*steps[:-1], name]) for name in _keys_at(model, steps[:-1])]
        offer = _nearest(key, known) or f"; there are: {', '.join(known)}"
        return f"unknown key {key!r}{origin}{offer}{more}"
    if first["type"] == "missing":
        return f"{key} is required: add  {key}=…{more}"
    said = first["msg"].removeprefix("Value error, ").removeprefix("Input ").replace("should be", "must be", 1)
    return f"{key or model.__name__}{origin}: {said}, not {first['input']!r}{more}" if steps else f"{said}{more}"


def _origin(key: str, origins: Mapping[str, str]) -> str:
    """Where the key, its nearest parent or, for a whole section, one of its children was said."""
    for length in range(len(key.split(".")), 0, -1):
        above = ".".join(key.split(".")[:length])
        found = origins.get(above) or next((where for said, where in origins.items() if said.startswith(f"{above}.")), None)
        if found:
            return f" from {found}"
    return ""


def _keys_at(model: type[BaseModel], steps: Sequence[str]) -> list[str]:
    """Field names that are allowed under a path of keys."""
    models = [model]
    for step in steps:
        annotations = [found.model_fields[step].annotation for found in models if step in found.model_fields]
        models = [below for annotation in annotations for below in _models(annotation)] or models
    return sorted({name for found in models for name in found.model_fields})


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _models(argument)]


def _nearest(name: str, known: Sequence[str]) -> str:
    from curate.schema import nearest

    return nearest(name, list(known))
