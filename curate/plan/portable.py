"""Types that every engine reads back as they were written, and how values of other types become one of them."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from curate.plan.objects import json_text
from curate.schema import portable

FORBIDDEN = " ,;{}()\n\t\r="  # Delta refuses these in column names
_INTEGER = r"^-?(0|[1-9]\d{0,17})$"
_REAL = r"^-?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][-+]?\d{1,2})?$|^-?([nN]a[nN]|inf)$"
_LONG_INTEGER = r"^-?\d{16,}$"
_INSTANT = pa.timestamp("us", "UTC")


def portable_type(kind: pa.DataType) -> pa.DataType:
    """The portable type that stands for `kind`: unsigned as int64, decimals as float64, instants in UTC, else text."""
    if isinstance(kind, pa.BaseExtensionType):
        return portable_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return portable_type(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(_inner(kind.value_type))
    if pa.types.is_struct(kind):
        sound = kind.num_fields > 0 and not any(set(FORBIDDEN) & set(field.name) for field in kind)
        return pa.struct([pa.field(field.name, _inner(field.type)) for field in kind]) if sound else pa.string()
    return kind if portable(kind) else _plain_type(kind)


def _inner(kind: pa.DataType) -> pa.DataType:
    return pa.string() if kind == pa.uint64() else portable_type(kind)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_int8(kind) or pa.types.is_int16(kind):
        return pa.int32()
    if pa.types.is_unsigned_integer(kind) or pa.types.is_duration(kind):
        return pa.int64()
    if pa.types.is_decimal(kind):
        return pa.float64()
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _INSTANT
    if pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    return pa.null() if pa.types.is_null(kind) else pa.string()


def settled(kind: pa.DataType) -> pa.DataType:
    """`kind` with text in place of columns that never had a value."""
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(settled(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, settled(field.type)) for field in kind])
    return kind


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The narrowest type that holds values of both: the same one, the wider number, else text."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if pa.types.is_integer(one) and pa.types.is_integer(other):
        return pa.int64()
    if _is_number(one) and _is_number(other):
        return pa.float64()
    if pa.types.is_list(one) and pa.types.is_list(other):
        inner = common_type(one.value_type, other.value_type)
        is_nested = pa.types.is_nested(one.value_type) or pa.types.is_nested(other.value_type)
        return pa.string() if is_nested and inner == pa.string() else pa.list_(inner)
    return pa.string()


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


@dataclass(frozen=True)
class TextShape:
    """What the texts of a column have in common; shapes of its pieces are joined with `|`, in any order."""

    empty: bool = True
    integers: bool = True
    reals: bool = True
    long: bool = False

    @classmethod
    def of(cls, texts: pa.Array, before: TextShape) -> TextShape:
        """Shape of some texts; `before` saves looking for numbers in a column that is known to have others."""
        known = texts.drop_null()
        if not len(known) or not before.reals:
            return cls(empty=not len(known), reals=before.reals)
        integers = _all(known, _INTEGER)
        return cls(False, integers, integers or _all(known, _REAL), _any(known, _LONG_INTEGER))

    def __or__(self, other: TextShape) -> TextShape:
        return TextShape(self.empty and other.empty, self.integers and other.integers, self.reals and other.reals, self.long or other.long)

    @property
    def type(self) -> pa.DataType:
        """int64, float64 or text, whichever loses nothing: padded or very long numbers stay text; null when empty."""
        if self.empty:
            return pa.null()
        if self.reals and self.integers:
            return pa.int64()
        return pa.float64() if self.reals and not self.long else pa.string()


def _all(texts: pa.Array, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(texts, pattern)).as_py())


def _any(texts: pa.Array, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(texts, pattern)).as_py())


def convert(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Values as the portable type that was chosen for their column; raises ArrowException where there is no way."""
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if values.type == kind:
        return values
    if kind == pa.string():
        return _as_text(values)
    if pa.types.is_float16(values.type):
        values = values.cast(pa.float32())
    if pa.types.is_date(values.type):
        values = values.cast(pa.timestamp("ms"))
    return values.cast(kind, safe=False)


def _as_text(values: pa.Array) -> pa.Array:
    kind = values.type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return values.cast(pa.string())
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return values.cast(pa.string())
    return pa.array([None if value is None else _text_of(value) for value in values.to_pylist()], pa.string())


def _text_of(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return json_text(value) if isinstance(value, float | dict | list) else str(value)


def unreadable_texts(values: pa.Array) -> list[int]:
    """Positions of texts that are not UTF-8; only damaged or careless Parquet files have them."""
    if not pa.types.is_string(values.type) and not pa.types.is_large_string(values.type):
        return []
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        raw = values.cast(pa.binary() if pa.types.is_string(values.type) else pa.large_binary()).to_pylist()
        return [at for at, value in enumerate(raw) if value is not None and not _is_utf8(value)]
    return []


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
