"""Reading Debian packages without installing them, on packages built here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from curate.demo import openclipart
from curate.demo.corpus import Corpus, counts
from curate.demo.openclipart import BOMB_PIXELS, Metadata, build, download, parse_metadata, parse_stamp_text, png_size
from curate.demo.settings import OpenclipartSettings
from curate.demo.trouble import BODIES
from curate.errors import UsageError

NO_DPKG = "NO DPKG-DEB: reading Debian packages is not tested on this machine"
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason=NO_DPKG)

SVG = """<?xml version="1.0" encoding="{encoding}"?>
<!DOCTYPE svg [<!ENTITY secret SYSTEM "file:///etc/hostname">]>
<svg xmlns="http://www.w3.org/2000/svg"><metadata><rdf:RDF><cc:Work rdf:about="">
<dc:title>{title}</dc:title><dc:description>Two
  lines</dc:description>
<dc:subject><rdf:Bag><rdf:li>bee</rdf:li><rdf:li></rdf:li><rdf:li>hash(0x8a3ecd4)</rdf:li></rdf:Bag></dc:subject>
<dc:publisher><cc:Agent><dc:title>The Publisher</dc:title></cc:Agent></dc:publisher>
<dc:creator><cc:Agent><dc:title>Ann Author</dc:title></cc:Agent></dc:creator>
<cc:license rdf:resource="http://web.resource.org/cc/PublicDomain"/>
</cc:Work></rdf:RDF></metadata><path d="M0 0"/></svg>"""


def svg(title: str, encoding: str = "utf-8") -> bytes:
    return SVG.format(title=title, encoding=encoding).encode(encoding)


def test_metadata_is_read_as_it_stands() -> None:
    found = parse_metadata(svg("A  Bee &amp; more"))
    licence = "http://web.resource.org/cc/PublicDomain"
    assert found == Metadata("A Bee & more", "Two lines", ("bee", "hash(0x8a3ecd4)"), "Ann Author", licence)


def test_declared_encoding_is_respected() -> None:
    assert parse_metadata(svg("Käfer", "iso-8859-1")).title == "Käfer"


def test_entities_are_neither_fetched_nor_expanded() -> None:
    assert parse_metadata(svg("&secret;")) == Metadata()


@pytest.mark.parametrize("data", [b"", b"<svg/>", b"<metadata><a></metadata>", b"<metadata>" + b"x" * (2 << 20) + b"</metadata>"])
def test_junk_gives_empty_metadata(data: bytes) -> None:
    assert parse_metadata(data) == Metadata()


def test_unknown_encoding_gives_empty_metadata() -> None:
    assert parse_metadata(svg("x").replace(b"utf-8", b"no-such-code")) == Metadata()


def test_stamp_text() -> None:
    text = "A bee.\nde.utf8=Eine Biene.\nzh_cn.utf8=蜜蜂\nca@valencia.utf8=Una abella. \nbroken line\nfr.utf8=\n"
    assert parse_stamp_text(text) == ("A bee.", {"de": "Eine Biene.", "zh_cn": "蜜蜂", "ca@valencia": "Una abella."})
    assert parse_stamp_text("") == ("", {})


def test_png_size_reads_the_header_only() -> None:
    assert png_size(BODIES["bomb_png"]()[:64]) == (20_000, 20_000)
    assert png_size(b"GIF89a" + bytes(40)) == (0, 0)


def make_package(folder: Path, name: str, files: dict[str, bytes], links: dict[str, str]) -> Path:
    """A real .deb that holds the given files and links."""
    tree = folder / name
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: for a test\n"
    )
    for path, content in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(content)
    for path, target in links.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).symlink_to(target)
    package = folder / f"{name}_1_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, package], check=True, capture_output=True)
    return package


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    if shutil.which("dpkg-deb") is None:
        pytest.skip(NO_DPKG)
    folder = tmp_path_factory.mktemp("packages")
    clip, stamps = "usr/share/openclipart", "usr/share/tuxpaint/stamps"
    png = BODIES["damaged_png"]()
    svgs = {f"{clip}/svg/animals/bugs/bee.svg": svg("A Bee"), f"{clip}/svg/bomb.svg": svg("gramastar")}
    pictures = {f"{clip}/png/animals/bugs/bee.png": png, f"{clip}/png/bomb.png": BODIES["bomb_png"](), f"{clip}/png/untitled.png": png}
    text = b"A horse.\nde.utf8=Ein Pferd.\nfr.utf8=Un cheval.\nen_gb.utf8=A horse.\nes.utf8=Un caballo.\n"
    drawn = {f"{stamps}/animals/horse.png": png, f"{stamps}/animals/horse.txt": text, f"{stamps}/no_caption.png": png}
    png_links = {"animals/copy.png": "bugs/bee.png", "twice (2).png": "animals/copy.png", "lost.png": "gone.png"}
    return {
        "openclipart-svg": make_package(folder, "openclipart-svg", svgs, {f"{clip}/svg/animals/copy.svg": "bugs/bee.svg"}),
        "openclipart-png": make_package(folder, "openclipart-png", pictures, {f"{clip}/png/{k}": v for k, v in png_links.items()}),
        "tuxpaint-stamps-default": make_package(folder, "tuxpaint-stamps-default", drawn, {}),
    }


@pytest.fixture(scope="module")
def corpus(packages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return build(tmp_path_factory.mktemp("built") / "corpus", packages, OpenclipartSettings(translations=2))


def test_every_path_becomes_a_row(corpus: Corpus) -> None:
    assert counts(corpus.truth(), "kind") == {"picture": 3, "duplicate_link": 2, "stamp": 1, "translation": 2}


def test_links_share_bytes_and_keep_their_own_address(corpus: Corpus) -> None:
    rows = {line["address"]: line for line in corpus.rows().to_pylist()}
    truth = {line["address"]: line for line in corpus.truth().to_pylist()}
    original, copy, twice = "/openclipart/animals/bugs/bee.png", "/openclipart/animals/copy.png", "/openclipart/twice%20%282%29.png"
    assert corpus.read(original)[1] == corpus.read(copy)[1] == corpus.read(twice)[1] == BODIES["damaged_png"]()
    assert truth[copy]["duplicate_of"] == truth[twice]["duplicate_of"] == original
    assert rows[copy]["caption"] == "A Bee" and rows[twice]["caption"] == ""
    assert "/openclipart/lost.png" not in rows


def test_columns_are_those_of_the_metadata(corpus: Corpus) -> None:
    line = next(line for line in corpus.rows().to_pylist() if line["address"] == "/openclipart/animals/bugs/bee.png")
    assert (line["caption"], line["keywords"], line["author"]) == ("A Bee", "bee, hash(0x8a3ecd4)", "Ann Author")
    assert (line["label"], line["category"], line["WIDTH"], line["HEIGHT"]) == ("bugs", "animals", 512, 512)


def test_bombs_are_kept_and_expected(corpus: Corpus) -> None:
    bombs = [line for line in corpus.truth().to_pylist() if line["expected_reason"] == "too_many_pixels"]
    assert [line["address"] for line in bombs] == ["/openclipart/bomb.png"] and BOMB_PIXELS < 20_000 * 20_000
    kept = Corpus(corpus.folder, fraction=1e-9)
    assert kept.rows().column("address").to_pylist() == kept.truth().column("address").to_pylist() == ["/openclipart/bomb.png"]


def test_stamps_have_translations_as_rows_of_the_same_address(corpus: Corpus) -> None:
    stamps = [line for line in corpus.rows().to_pylist() if line["address"] == "/stamps/animals/horse.png"]
    assert stamps[0]["caption"] == "A horse." and len(stamps) == 3
    others = {line["caption"]: line["language"] for line in stamps[1:]}
    assert len(others) == 2 and others.items() <= {"Ein Pferd.": "de", "Un cheval.": "fr", "Un caballo.": "es"}.items()
    assert {caption["name"] for caption in stamps[0]["captions"]} == {"de", "fr", "en_gb", "es"}


def test_smaller_lists_are_parts_of_larger_ones(corpus: Corpus) -> None:
    lists = [set(Corpus(corpus.folder, fraction).rows().column("address").to_pylist()) for fraction in (0.2, 0.5, 0.9, 1.0)]
    assert lists[0] <= lists[1] <= lists[2] <= lists[3] and len(lists[0]) < len(lists[3])


@needs_dpkg
def test_damaged_package_is_one_line(packages: dict[str, Path], tmp_path: Path) -> None:
    damaged = tmp_path / "openclipart-png_1_all.deb"
    damaged.write_bytes(packages["openclipart-png"].read_bytes()[:-200])
    with pytest.raises(UsageError, match="damaged"):
        build(tmp_path / "corpus", {**packages, "openclipart-png": damaged}, OpenclipartSettings())
    assert not (tmp_path / "corpus").exists() and not list(tmp_path.glob("*.tmp"))


@needs_dpkg
def test_cached_corpus_reads_no_package_again(packages: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    for package in packages.values():
        shutil.copy(package, tmp_path / "packages")
    first = openclipart.cached(tmp_path)
    assert not (tmp_path / "packages").exists()
    assert openclipart.cached(tmp_path, progress=lambda what, done, total: pytest.fail(what)) == first


def test_machine_without_apt_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"needs apt-get and dpkg-deb .*--corpus scenes") as caught:
        download(tmp_path, ["openclipart-png"])
    assert "\n" not in str(caught.value)


def test_failing_apt_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands a program called apt-get first in the path that fails as the real one does on a machine without a network."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("apt-get", "dpkg-deb"):
        (tools / tool).write_text('#!/bin/sh\necho "W: a warning"\necho "E: Unable to locate package $*" >&2\nexit 100\n')
        (tools / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    with pytest.raises(UsageError, match=r"cannot download openclipart-png \(Unable to locate package .*--corpus scenes"):
        download(tmp_path / "packages", ["openclipart-png"])
