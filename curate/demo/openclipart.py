"""The real corpus: openclipart pictures with the metadata of their SVG twins, and Tux Paint's captioned stamps.

Three Debian packages are downloaded with `apt-get download`, read as a stream without being installed, and kept as one
corpus folder. Titles are taken as they are, boilerplate and junk included: they are the noise that curation is for.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import shutil
import struct
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.parsers import expat

from curate.demo.corpus import Answer, Corpus, CorpusWriter, Progress, silent
from curate.demo.settings import OpenclipartSettings
from curate.errors import UsageError

PACKAGES = ("openclipart-svg", "openclipart-png", "tuxpaint-stamps-default")
BOMB_PIXELS = 178_956_970
"""More pixels than this is a decompression bomb: twice Pillow's warning limit, where it refuses to decode."""

_PNG_ROOT, _SVG_ROOT, _STAMPS_ROOT = "usr/share/openclipart/png/", "usr/share/openclipart/svg/", "usr/share/tuxpaint/stamps/"
_MAX_METADATA_BYTES = 1 << 20
_INSTEAD = "; the generated corpus needs none of it: --corpus scenes"


def cache_folder() -> Path:
    """Where the corpus is kept between runs: `curate` in the user's cache folder (XDG)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "curate"


def cached(folder: Path, settings: OpenclipartSettings | None = None, progress: Progress = silent) -> Corpus:
    """The corpus below `folder`, downloaded (317 MB) and read only when it is not there yet (150 MB).

    Raises UsageError in one line when this machine has no apt-get or the download fails.
    """
    settings = settings or OpenclipartSettings()
    path = folder / f"openclipart-1-{settings.translations}"
    if path.exists():
        return Corpus.open(path)
    packages = download(folder / "packages", PACKAGES, progress)
    try:
        return build(path, packages, settings, progress)
    finally:
        shutil.rmtree(folder / "packages")  # a damaged download must not be met again


def download(folder: Path, names: Sequence[str], progress: Progress = silent) -> dict[str, Path]:
    """The named Debian packages as files in `folder`; what is already there is not downloaded again.

    Where the machine's package lists are missing or old, fresh ones go into `folder`, so that neither root nor a change
    to the machine is needed. Raises UsageError when apt-get or dpkg-deb is missing, or nothing can be downloaded.
    """
    missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        raise UsageError(f"the openclipart corpus needs {' and '.join(missing)} (Debian or Ubuntu){_INSTEAD}")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [name for name in names if name not in _present(folder, names)]
    if wanted and _apt(folder, ["download", *wanted], progress, private=False):
        _apt(folder, ["update"], progress, private=True)
        error = _apt(folder, ["download", *wanted], progress, private=True)
        if error:
            raise UsageError(f"cannot download {', '.join(wanted)} ({error}){_INSTEAD}")
    found = _present(folder, names)
    if len(found) < len(names):
        raise UsageError(f"apt-get left no package file for {', '.join(sorted(set(names) - set(found)))}{_INSTEAD}")
    return found


def _present(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    return {name: path for name in names for path in sorted(folder.glob(f"{name}_*.deb"))}


def _apt(folder: Path, command: list[str], progress: Progress, private: bool) -> str:
    """Runs apt-get in `folder`, telling bytes as they arrive; returns an error line, empty when all went well.

    `private` uses package lists of our own below `folder`.
    """
    options = ["-q", "-o", "Debug::NoLocking=1"]
    if os.geteuid() == 0:
        options += ["-o", "APT::Sandbox::User=root"]
    if private:
        lists, archives = folder / "apt" / "lists", folder / "apt" / "cache" / "archives"
        for made in (lists / "partial", archives / "partial"):
            made.mkdir(parents=True, exist_ok=True)
        options += ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={archives.parent}"]
    total_bytes = _announced_bytes(["apt-get", *options, *command, "--print-uris"], folder) if command[0] == "download" else 0
    with open(folder / "apt.log", "w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(["apt-get", *options, *command], cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        while process.poll() is None:
            progress("downloading (bytes)", _size_bytes(folder), total_bytes)
            time.sleep(0.1)
        log.seek(0)
        return _error_line(log.read()) if process.returncode else ""


def _announced_bytes(command: list[str], folder: Path) -> int:
    """What apt-get says it would download; lines read `'address' file size checksum`. 0 when it cannot tell."""
    answer = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return sum(int(size) for size in re.findall(r"^'.*' \S+ (\d+) ", answer.stdout, re.MULTILINE))


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.deb*") if path.exists())


def _error_line(log: str) -> str:
    lines = [line.removeprefix("E: ") for line in log.splitlines() if line.startswith("E: ")] or log.splitlines()
    return lines[0] if lines else "apt-get failed without a word"


def build(folder: Path, packages: Mapping[str, Path], settings: OpenclipartSettings, progress: Progress = silent) -> Corpus:
    """Reads the packages into a corpus at `folder`, replacing what is there.

    Raises UsageError when a package file is damaged.
    """
    metadata = read_metadata(packages["openclipart-svg"], progress)
    with CorpusWriter(folder) as writer:
        _write_clipart(writer, _read_pictures(writer, packages["openclipart-png"], _PNG_ROOT, progress), metadata)
        stamps = _read_pictures(writer, packages["tuxpaint-stamps-default"], _STAMPS_ROOT, progress)
        _write_stamps(writer, stamps, settings)
    return Corpus.open(folder)


@dataclass(frozen=True)
class Metadata:
    """What an SVG file says about itself; empty where it says nothing."""

    title: str = ""
    description: str = ""
    keywords: tuple[str, ...] = ()
    author: str = ""
    licence: str = ""


@dataclass
class _Pictures:
    """What one package holds below its root, by path from there."""

    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def real(self, path: str) -> str | None:
        """The file that a path leads to through links; None when it leads nowhere."""
        return _resolve(path, self.links, self.places)


def _resolve(path: str, links: Mapping[str, str], files: Mapping[str, Any]) -> str | None:
    for _ in range(8):
        if path in files:
            return path
        if path not in links:
            return None
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), links[path]))
    return None


def _members(package: Path, root: str, suffixes: tuple[str, ...]) -> Iterator[tuple[str, tarfile.TarInfo, bytes]]:
    """Files and links below `root` with one of the suffixes: path from root, tar entry, content (empty for links)."""
    process = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        with process.stdout, tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for entry in archive:
                path = entry.name.removeprefix("./")
                if path.startswith(root) and path.endswith(suffixes) and (entry.isfile() or entry.issym()):
                    content = archive.extractfile(entry) if entry.isfile() else None
                    yield path.removeprefix(root), entry, content.read() if content else b""
            while process.stdout.read(1 << 20):
                pass  # dpkg-deb must be able to end by itself, or its exit status says nothing
    except tarfile.TarError:
        process.kill()
    if process.wait():
        raise UsageError(f"{package} is damaged or incomplete: start again to download it anew")


def read_metadata(package: Path, progress: Progress = silent) -> dict[str, Metadata]:
    """What the SVG files of a package say about themselves, by path without `.svg`."""
    found: dict[str, Metadata] = {}
    links: dict[str, str] = {}
    for path, entry, content in _members(package, _SVG_ROOT, (".svg",)):
        if entry.issym():
            links[path] = entry.linkname
        else:
            found[path] = parse_metadata(content)
            progress("reading captions", len(found), 0)
    targets = {path: _resolve(path, links, found) for path in [*found, *links]}
    return {path.removesuffix(".svg"): found[target] for path, target in targets.items() if target is not None}


def parse_metadata(svg: bytes) -> Metadata:
    """Title, description, keywords, author and licence from an SVG file's RDF; empty when there is none to read.

    Only the bytes from `<metadata` to `</metadata>` reach the parser. A document type cannot stand there, so no entity
    can be declared, expanded or fetched.
    """
    match = re.search(rb"<(?:\w+:)?metadata\b.*?</(?:\w+:)?metadata\s*>", svg, re.DOTALL)
    if match is None or len(match.group()) > _MAX_METADATA_BYTES:
        return Metadata()
    encoding = re.match(rb"\s*<\?xml[^>]*encoding=[\"']([\w-]+)", svg)
    texts = _Texts()
    try:
        parser = expat.ParserCreate(encoding.group(1).decode() if encoding else "utf-8")
        parser.buffer_text = True
        parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = texts.start, texts.end, texts.text
        parser.Parse(match.group(), True)
    except (expat.ExpatError, LookupError):
        return Metadata()
    return texts.metadata()


class _Texts:
    """Collects the texts of the elements below `Work` by the last names of their path; prefixes are ignored."""

    def __init__(self) -> None:
        self._path: list[str] = []
        self._found: dict[str, list[str]] = {}

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""
        self._path.append(name.rpartition(":")[2])
        self._found.setdefault("/".join(self._path[-3:]), []).append("")
        if self._path[-2:] == ["Work", "license"]:
            self._found["licence"] = [value for key, value in attributes.items() if key.endswith("resource")]

    def end(self, name: str) -> None:
        """An element ends."""
        self._path.pop()

    def text(self, data: str) -> None:
        """Character data of the innermost element."""
        self._found["/".join(self._path[-3:])][-1] += data

    def metadata(self) -> Metadata:
        """What was found, with runs of white space made one space."""

        def first(key: str) -> str:
            return " ".join(self._found.get(key, [""])[0].split()) if self._found.get(key) else ""

        keywords = (" ".join(word.split()) for word in self._found.get("subject/Bag/li", []))
        return Metadata(
            first("RDF/Work/title"), first("RDF/Work/description"), tuple(filter(None, keywords)),
            first("creator/Agent/title"), first("licence"),
        )  # fmt: skip


def _read_pictures(writer: CorpusWriter, package: Path, root: str, progress: Progress) -> _Pictures:
    """Stores a package's PNG files; remembers links and caption files."""
    pictures = _Pictures()
    for path, entry, content in _members(package, root, (".png", ".txt")):
        if path.endswith(".txt"):
            pictures.texts[path.removesuffix(".txt")] = content.decode("utf-8", "replace")
        elif entry.issym():
            pictures.links[path] = entry.linkname
        else:
            pictures.places[path] = writer.body(content)
            pictures.sizes[path] = png_size(content)
            progress("reading pictures", len(pictures.places), 0)
    return pictures


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height that a PNG file's header announces; (0, 0) when it is none."""
    if data[:8] != b"\x89PNG\r\n\x1a\n" or len(data) < 24:
        return 0, 0
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def _write_clipart(writer: CorpusWriter, pictures: _Pictures, metadata: Mapping[str, Metadata]) -> None:
    for path in sorted([*pictures.places, *pictures.links]):
        real = pictures.real(path)
        if real is None:
            continue
        about = metadata.get(path.removesuffix(".png"), Metadata())
        columns = {
            **_columns("openclipart", path, pictures.sizes[real]),
            "keywords": ", ".join(about.keywords), "description": about.description,
            "author": about.author, "licence": about.licence, "language": "en",
        }  # fmt: skip
        address = _serve(writer, f"/openclipart/{path}", pictures.places[real])
        link = None if real == path else quote(f"/openclipart/{real}")
        writer.row(address, about.title, columns, _truth("picture" if link is None else "duplicate_link", pictures.sizes[real], link))


def _write_stamps(writer: CorpusWriter, pictures: _Pictures, settings: OpenclipartSettings) -> None:
    for path in sorted(pictures.places):
        english, translations = parse_stamp_text(pictures.texts.get(path.removesuffix(".png"), ""))
        if not english:
            continue
        address = _serve(writer, f"/stamps/{path}", pictures.places[path])
        columns = _columns("tuxpaint-stamps", path, pictures.sizes[path])
        captions = [{"name": locale, "text": text, "source": "tuxpaint-stamps"} for locale, text in translations.items()]
        truth = _truth("stamp", pictures.sizes[path], None)
        writer.row(address, english, {**columns, "language": "en", "captions": captions}, truth)
        for locale in _chosen_locales(path, english, translations)[: settings.translations]:
            line = {**columns, "language": re.split("[_@]", locale)[0], "captions": []}
            writer.row(address, translations[locale], line, {**truth, "kind": "translation"})


def parse_stamp_text(text: str) -> tuple[str, dict[str, str]]:
    """A stamp's English sentence, and its translations by locale (`de`, `zh_cn`, `ca@valencia`)."""
    lines = [line.strip() for line in text.splitlines()]
    translated = (re.fullmatch(r"([\w@]+)\.utf8=(.+)", line) for line in lines[1:])
    return (lines[0] if lines else ""), {found.group(1): found.group(2).strip() for found in translated if found}


def _chosen_locales(path: str, english: str, translations: Mapping[str, str]) -> list[str]:
    """Locales in an order that is drawn anew for each stamp, without English and without texts left untranslated."""
    able = [locale for locale, text in translations.items() if text != english and not locale.startswith("en")]
    distinct = {translations[locale]: locale for locale in sorted(able)}.values()
    return sorted(distinct, key=lambda locale: hashlib.sha256(f"{path}/{locale}".encode()).digest())


def _serve(writer: CorpusWriter, path: str, place: tuple[int, int]) -> str:
    writer.answer(quote(path), Answer("ok", 200, (("Content-Type", "image/png"),), *place))
    return quote(path)


def _columns(collection: str, path: str, size: tuple[int, int]) -> dict[str, Any]:
    """Columns as real lists have them; the class name is the innermost folder."""
    label = posixpath.basename(posixpath.dirname(path)).replace("_", " ")
    return {"label": label, "category": path.partition("/")[0], "WIDTH": size[0], "HEIGHT": size[1], "collection": collection}


def _truth(kind: str, size: tuple[int, int], duplicate_of: str | None) -> dict[str, Any]:
    bomb = size[0] * size[1] > BOMB_PIXELS
    return {"kind": kind, "duplicate_of": duplicate_of, "expected_reason": "too_many_pixels" if bomb else None}
