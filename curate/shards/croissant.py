"""A packed subset, or Parquet tables of one, described in Croissant, so that catalogues and loaders know what is in it.

Format: Croissant 1.0 (mlcommons, docs.mlcommons.org/croissant/docs/croissant-spec.html), JSON-LD with schema.org's words. Nothing in
the document depends on when or where it was written: the same subset described in the same words gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from curate import schema as schemas
from curate.errors import InputError, UsageError
from curate.settings import Settings
from curate.shards.index import ShardIndex, read_index, regular_file
from curate.shards.subset import Subset, read_subset, refuse_withdrawn
from curate.store import Pool, file_sha256

FILE = "croissant.json"
_FORMAT = "http://mlcommons.org/croissant/1.0"
_MEDIA = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
_TABLES = "parquet_files"
_PARQUET, _TAR = "application/x-parquet", "application/x-tar"
_CROISSANT = (
    "citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet", "format", "includes",
    "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex", "repeated", "replace",
    "samplingRate", "separator", "source", "subField", "transform",
)  # fmt: skip
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    **{word: f"cr:{word}" for word in _CROISSANT},
}

Node = dict[str, object]


class Card(Settings):
    """What people say of a dataset; what is empty is left out. `base_url` stands before the files' names, where they will be served."""

    name: str = ""
    description: str = ""
    license: str = ""
    cite_as: str = ""
    url: str = ""
    creators: tuple[str, ...] = ()
    version: str = ""
    date_published: str = Field(default="", pattern=r"^(\d{4}-\d{2}-\d{2})?$")
    base_url: str = ""


@dataclass(frozen=True)
class CroissantReport:
    """What was described, and where it stands."""

    file: Path
    subset: str
    files: int
    fields: int


@dataclass(frozen=True)
class _File:
    """One file of the distribution; `name` is its path from the folder of the description."""

    name: str
    size_bytes: int
    sha256: str
    kind: str

    def node(self, base_url: str) -> Node:
        address = f"{base_url.rstrip('/')}/{self.name}" if base_url else self.name
        return {
            "@type": "cr:FileObject", "@id": self.name, "name": self.name, "contentUrl": address, "encodingFormat": self.kind,
            "contentSize": f"{self.size_bytes} B", "sha256": self.sha256,
        }  # fmt: skip


def describe(pool: Pool, subset_name: str, output: Path | None, card: Card, tables: Sequence[Path] = ()) -> CroissantReport:
    """Writes a description of a packed subset, or of Parquet `tables` that were taken from it, to `output`.

    By itself it stands beside the shards; `output` must be in their folder or above it, since files are named from there. Raises
    UsageError for a subset that is not packed as it is now, and for files elsewhere; InputError for a table that cannot be read.
    """
    pool.require_disk("a Croissant description")
    subset = read_subset(pool, subset_name)
    refuse_withdrawn(subset)
    folder = pool.path / "shards" / subset_name
    target = (output or (tables[0].parent if tables else folder) / FILE).absolute()
    if tables:
        parquet, tars, formats = [_table(path, target) for path in tables], list[_File](), list[str]()
        schema = _schema(tables)
    else:
        index = _packed(folder, subset)
        parquet, tars = _shards(folder, index, target)
        schema = _schema([folder / shard.parquet for shard in index.shards])
        formats = _formats([folder / shard.parquet for shard in index.shards])
    records = [_samples(pool, schema, parquet), *(_images(extension) for extension in formats)]
    document = _document(subset, card, [*parquet, *tars], formats, records)
    try:
        target.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror or error}") from None
    return CroissantReport(target, subset.name, len(parquet) + len(tars), sum(len(_fields(record)) for record in records))


# -- files


def _packed(folder: Path, subset: Subset) -> ShardIndex:
    index = read_index(folder)
    if index.digest != subset.digest:
        raise UsageError(f"subset {subset.name!r} was packed before its policy was applied anew: run  curate pack  first")
    if index.mode != "copy" or not index.shards:
        raise UsageError(f"subset {subset.name!r} has no shards of its own to describe: pack it with  mode=copy, or name tables  (--table)")
    return index


def _shards(folder: Path, index: ShardIndex, target: Path) -> tuple[list[_File], list[_File]]:
    """Parquet files and tars, with the sizes and hashes that they were packed with."""
    for shard in index.shards:
        regular_file(folder / shard.tar, shard.bytes)
        regular_file(folder / shard.parquet, shard.parquet_bytes)
    parquet = [_File(_named(folder / s.parquet, target), s.parquet_bytes, s.parquet_sha256, _PARQUET) for s in index.shards]
    return parquet, [_File(_named(folder / s.tar, target), s.bytes, s.sha256, _TAR) for s in index.shards]


def _table(path: Path, target: Path) -> _File:
    try:
        return _File(_named(path, target), path.stat().st_size, file_sha256(path), _PARQUET)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None


def _named(path: Path, target: Path) -> str:
    try:
        return path.absolute().relative_to(target.parent).as_posix()
    except ValueError:
        raise UsageError(f"{path} lies outside of {target.parent}: write the description there or above  (-o)") from None


def _schema(tables: Sequence[Path]) -> pa.Schema:
    """The columns of all files. Raises InputError when they differ."""
    found: pa.Schema | None = None
    for path in tables:
        try:
            own = pq.read_schema(path).remove_metadata()
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None
        if found is not None and own != found:
            raise InputError(f"{path} has other columns than {tables[0]}: describe them in two files")
        found = own
    assert found is not None
    return found


def _formats(tables: Sequence[Path]) -> list[str]:
    """Image formats that the shards hold, by their members' endings."""
    return sorted({one for path in tables for one in pc.unique(pq.read_table(path, columns=["format"])["format"]).to_pylist()})


# -- the document


def _document(subset: Subset, card: Card, files: Sequence[_File], formats: Sequence[str], records: Sequence[Node]) -> Node:
    said: Node = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": _FORMAT,
        "name": card.name or subset.name,
        "description": card.description or _told(subset),
        "license": card.license,
        "citeAs": card.cite_as,
        "url": card.url,
        "creator": [{"@type": "sc:Person", "name": name} for name in card.creators],
        "version": card.version,
        "datePublished": card.date_published,
        "distribution": [*(file.node(card.base_url) for file in files), *_sets(files, formats)],
        "recordSet": list(records),
    }
    return {key: value for key, value in said.items() if value}


def _told(subset: Subset) -> str:
    return (
        f"{subset.kept:,} of {subset.rows:,} rows, kept by policy {subset.policy} (sha256 {subset.policy_sha256});"
        f" digest of the subset: {subset.digest}. Made with curate."
    )


def _sets(files: Sequence[_File], formats: Sequence[str]) -> Iterator[Node]:
    """The Parquet files together, and the images of each format in the tars."""
    parquet, tars = ([file for file in files if file.kind == kind] for kind in (_PARQUET, _TAR))
    if len(parquet) > 1:
        yield _set(_TABLES, _PARQUET, [file.name for file in parquet])
    for extension in formats:
        holders = [{"@id": file.name} for file in tars]
        yield _set(f"{extension}_files", _MEDIA[extension], f"*.{extension}", containedIn=holders[0] if len(holders) == 1 else holders)


def _set(name: str, kind: str, includes: str | list[str], **more: object) -> Node:
    return {"@type": "cr:FileSet", "@id": name, "name": name, **more, "encodingFormat": kind, "includes": includes}


def _samples(pool: Pool, schema: pa.Schema, files: Sequence[_File]) -> Node:
    """One record for each row; columns of structs and of bytes are left to those who open the Parquet files."""
    comments = _comments(pool)
    place: Node = {"fileSet": {"@id": _TABLES}} if len(files) > 1 else {"fileObject": {"@id": files[0].name}}
    fields = [node for field in schema if (node := _column(field, comments.get(field.name, ""), place)) is not None]
    keys = {"key": {"@id": "samples/sample_id"}} if "sample_id" in schema.names else {}
    told = "one record for each sample: where it is from, its captions, what was measured"
    return {"@type": "cr:RecordSet", "@id": "samples", "name": "samples", "description": told, **keys, "field": fields}


def _column(field: pa.Field, comment: str, place: Node) -> Node | None:
    many = pa.types.is_list(field.type)
    kind = _data_type(field.type.value_type if many else field.type, field.name)
    source = {**place, "extract": {"column": field.name}}
    return None if kind is None else _field("samples", field.name, comment, kind, source, **({"repeated": True} if many else {}))


def _data_type(kind: pa.DataType, name: str) -> str | None:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "sc:URL" if name == "url" else "sc:Text"
    known = ((pa.types.is_boolean, "sc:Boolean"), (pa.types.is_integer, "sc:Integer"), (pa.types.is_floating, "sc:Float"))
    return next((said for holds, said in known if holds(kind)), "sc:DateTime" if pa.types.is_timestamp(kind) else None)


def _images(extension: str) -> Node:
    """The images of one format, by the sample_id that is their name in the tar."""
    name = f"images_{extension}"
    files: Node = {"fileSet": {"@id": f"{extension}_files"}}
    stem = {**files, "extract": {"fileProperty": "filename"}, "transform": {"regex": rf"^(.+?)(?:\.{extension})?$"}}
    # the ending may be gone: loaders that join apply the expression twice
    key = _field(name, "sample_id", "which sample shows it", "sc:Text", stem, references={"field": {"@id": "samples/sample_id"}})
    image = _field(name, "image", "the encoded picture", "sc:ImageObject", {**files, "extract": {"fileProperty": "content"}})
    keys = {"@id": f"{name}/sample_id"}
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "description": "the pictures", "key": keys, "field": [key, image]}


def _field(record: str, name: str, comment: str, kind: str, source: Node, **more: object) -> Node:
    told = {"description": comment} if comment else {}
    return {"@type": "cr:Field", "@id": f"{record}/{name}", "name": name, **told, "dataType": kind, "source": source, **more}


def _comments(pool: Pool) -> dict[str, str]:
    """What the schemas say of each column; of scores that no schema file names, what their scorer said, where the pool keeps it."""
    found: dict[str, str] = {}
    for family in ("rows", "fetched", "scores", "shards"):
        for field in schemas.table(family):
            found.setdefault(field.name, field.metadata[b"comment"].decode())
    for name in pool.tables():
        for field in (pool.snapshot(name).schema or ()) if name.startswith("scores_") else ():
            comment = (field.metadata or {}).get(b"comment", b"").decode()
            found.setdefault(field.name, comment or ("cosine of image and caption embedding" if field.name.startswith("clip_") else ""))
    return found


def _fields(record: Node) -> Sequence[object]:
    fields = record["field"]
    assert isinstance(fields, list)
    return fields
