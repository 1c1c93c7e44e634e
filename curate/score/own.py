"""A scorer that curate does not know: a class of the user's own, named in the settings."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import pyarrow as pa
from pydantic import Field, ValidationError

from curate.errors import SettingsError
from curate.schema import nearest
from curate.score.scorer import Batch, Opened, Scored, Scorer
from curate.settings import Settings
from curate.stage import identity_of

_MEMBERS = ("version", "needs", "adds", "identity", "open")


class OwnScorer(Settings):
    """A class that does what `curate.score.scorer.Scorer` describes: `use` is `module:Class`, `settings` are its arguments.

    The module must be importable on every worker: installed, on PYTHONPATH, or in the folder where the command is given. Its
    `version` is to be raised when it would give other values: code is not compared.
    """

    use: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    settings: dict[str, Any] = {}

    @property
    def needs(self) -> pa.Schema:
        """That of the class."""
        return self.built().needs

    @property
    def adds(self) -> pa.Schema:
        """That of the class, marked as scores."""
        fields = [field if field.metadata else field.with_metadata({"class": "scores"}) for field in self.built().adds]
        return pa.schema(fields)

    def identity(self) -> str:
        """That of the class, with its name."""
        scorer = self.built()
        return identity_of("OwnScorer", scorer.version, {"class": self.use.partition(":")[2], "is": scorer.identity()})

    @contextmanager
    def open(self) -> Iterator[Opened]:
        """Opens it on the worker; what it returns must be what it said."""
        scorer = self.built()
        with scorer.open() as opened:
            yield replace(opened, score=lambda batch: self._checked(batch, opened.score(batch), scorer.adds))

    def built(self) -> Scorer:
        """The scorer itself. Raises SettingsError, one line, when there is none of that name or it is no scorer."""
        module, _, name = self.use.partition(":")
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        try:
            found = importlib.import_module(module)
        except ImportError as error:
            raise SettingsError(f"{self.use}: {error}: install it, set PYTHONPATH, or go to the folder where {module} is") from None
        known = [known for known, kind in vars(found).items() if isinstance(kind, type)]
        if name not in known:
            raise SettingsError(f"{self.use}: no class {name!r} in {found.__file__}{nearest(name, known)}")
        try:
            scorer = getattr(found, name)(**self.settings)
        except ValidationError as error:
            first = error.errors()[0]
            raise SettingsError(f"{self.use}: settings.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        except TypeError as error:
            raise SettingsError(f"{self.use}: {error}") from None
        missing = [member for member in _MEMBERS if not hasattr(scorer, member)]
        if missing:
            raise SettingsError(f"{self.use} is no scorer: it has no {', '.join(missing)} (see curate.score.scorer.Scorer)")
        return cast(Scorer, scorer)

    def _checked(self, batch: Batch, scored: Scored, wanted: pa.Schema) -> Scored:
        columns = scored.columns
        if columns.num_rows != batch.rows.num_rows or columns.schema.names != wanted.names or columns.schema.types != wanted.types:
            shape = f"{columns.num_rows} lines of {', '.join(f'{field.name} {field.type}' for field in columns.schema)}"
            said = f"{batch.rows.num_rows} of {', '.join(f'{field.name} {field.type}' for field in wanted)}"
            raise SettingsError(f"{self.use} returned {shape}, not {said}")
        return scored
