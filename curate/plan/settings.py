"""What a person says about an input list, and how it is cut into parts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from curate.settings import Settings

Format = Literal["auto", "txt", "csv", "tsv", "json", "jsonl", "parquet"]
PresetName = Literal["auto", "laion", "datacomp", "coyo", "cc3m", "cc12m", "none"]


class InputSettings(Settings):
    """An input list: where it lies, how it is written and which of its columns mean what.

    `path` is a file, folder, glob or any fsspec URL, or a list of these. `columns` maps a meaning to a column name:
    `url`, `caption` and `label` fill the columns of the table `rows`; any other meaning (`sha256`, `md5`, `uid`, ...)
    is stored as `source.<meaning>`. Formats are taken from file names, `.gz` and `.zst` included, unless `format` is set.
    """

    path: str | tuple[str, ...]
    format: Format = "auto"
    preset: PresetName = "auto"
    url_column: str | None = None
    caption_column: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    delimiter: str | None = None
    header: Literal["auto"] | bool = "auto"
    sample: float = Field(default=1.0, gt=0.0, le=1.0, description="share of url_ids that are kept; smaller shares are subsets of larger")

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        if value is not None and (len(value) != 1 or value in '"\r\n'):
            raise ValueError("must be one character other than a quote or a line end")
        return value

    @field_validator("header", mode="before")
    @classmethod
    def _header_word(cls, value: object) -> object:
        return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _said_once(self) -> InputSettings:
        for meaning, column in (("url", self.url_column), ("caption", self.caption_column)):
            if column is not None and self.columns.get(meaning, column) != column:
                raise ValueError(f"{meaning}_column and columns.{meaning} name different columns")
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        """`path` as a tuple."""
        return (self.path,) if isinstance(self.path, str) else self.path

    @property
    def meanings(self) -> dict[str, str]:
        """All meanings that were given by hand, meaning -> column name."""
        given = {"url": self.url_column, "caption": self.caption_column}
        return {**self.columns, **{meaning: column for meaning, column in given.items() if column is not None}}


class PlanSettings(Settings):
    """How rows are cut into parts; fixed for the life of a pool."""

    rows_per_part: int = Field(default=10_000, gt=0, description="expected rows of a part, or fewer in a short list")
    min_parts: int = Field(default=16, gt=0, description="parts of a short list, as long as each has 250 rows")
    max_parts: int | None = Field(default=None, gt=0, description="upper bound on the number of parts")
    spool_bytes: int = Field(default=32 << 20, gt=0, description="rows held in memory before they are spooled to disk")
