"""Block lists: exact line of a hit, a clear line for a bad file, small in memory, and asked before anything else."""

from __future__ import annotations

import gzip
import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from curate.errors import InputError
from curate.fetch import blocklist, entries
from curate.fetch.blocklist import BlockListSettings, Hit, load
from curate.fetch.lookup import ExactSet, NearSet
from curate.fetch.settings import FetchSettings
from tests.fetch.conftest import FaultServer, fetch, picture, quick


def written(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return str(path)


def lists(folder: Path, kind: str, text: str, name: str = "bad.txt") -> blocklist.BlockLists:
    return load(BlockListSettings.model_validate({kind: (written(folder, name, text),)}))


def test_urls_in_any_usual_spelling(tmp_path: Path) -> None:
    found = lists(tmp_path, "urls", "# comment\n\nhttp://Example.ORG:80/a.jpg#top\nhttps://b\u00fccher.example/x?q=1\n")
    assert found.of_url("http://example.org/a.jpg") == Hit("blocklist:bad.txt", "3")
    assert found.of_url("HTTPS://xn--bcher-kva.example:443/x?q=1") == Hit("blocklist:bad.txt", "4")
    for other in ("https://example.org/a.jpg", "http://example.org/A.jpg", "http://example.org:81/a.jpg", "http://example.org", "x", ""):
        assert found.of_url(other) is None


def test_domains_with_their_subdomains(tmp_path: Path) -> None:
    found = lists(tmp_path, "domains", "example.org\n*.Tracker.example.\n203.0.113.9\nm\u00fcnchen.de\n2001:db8::1\n")
    hits = {
        "http://example.org/": "1", "https://a.b.example.org:444/x": "1", "http://tracker.example/": "2", "http://x.tracker.example./": "2",
        "http://203.0.113.9/a": "3", "http://xn--mnchen-3ya.de/": "4", "http://[2001:db8::1]/": "5",
    }  # fmt: skip
    for url, line in hits.items():
        assert found.of_url(url) == Hit("blocklist:bad.txt", line), url
    for url in ("http://notexample.org/", "http://example.org.evil.com/", "http://org/", "http://203.0.113.90/", "http://[::1"):
        assert found.of_url(url) is None, url


def test_hashes_of_either_kind_and_case(tmp_path: Path) -> None:
    sha, md5 = hashlib.sha256(b"one").hexdigest().upper(), hashlib.md5(b"two").hexdigest()
    found = lists(tmp_path, "hashes", f"sha or md5,why\n{md5},x\n{sha},y\n", "known.csv.gz")
    assert found.needs_md5
    assert found.of_body(hashlib.sha256(b"one").digest(), None) == Hit("blocklist:known.csv.gz", "3")
    assert found.of_body(hashlib.sha256(b"two").digest(), hashlib.md5(b"two").digest()) == Hit("blocklist:known.csv.gz", "2")
    assert found.of_body(hashlib.sha256(b"three").digest(), hashlib.md5(b"three").digest()) is None


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("hashes", "ab" * 16 + "\nzz\n", "line 2: 'zz' is not an md5 or sha256"),
        ("pdq", "ab" * 16, "line 1: 'abababab"),
        ("urls", "http://a.example/\n\nftp://b.example/", "line 3: 'ftp://b.example/' is not an http or https URL"),
        ("urls", "http://a.example:99999/x", "line 1"),
        ("domains", "a.example\nb example", "line 2: 'b example' is not a domain"),
        ("domains", "http://a.example", "line 1"),
    ],
)
def test_a_bad_line_names_file_and_line(tmp_path: Path, kind: str, text: str, said: str) -> None:
    with pytest.raises(InputError, match="bad.txt, line") as caught:
        lists(tmp_path, kind, text)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_list_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing.txt cannot be read: No such file"):
        load(BlockListSettings(urls=(str(tmp_path / "missing.txt"),)))
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"a.example\n" * 1000)[:-9])
    with pytest.raises(InputError, match="cut.txt.gz cannot be read"):
        load(BlockListSettings(domains=(str(tmp_path / "cut.txt.gz"),)))


def test_identity_follows_content_and_kind_not_place(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one, same = written(tmp_path, "a.txt", "a.example\n"), written(tmp_path / "other", "b.txt", "a.example\n")
    longer = written(tmp_path, "c.txt", "a.example\nb.example\n")
    identities = [FetchSettings.model_validate({"blocklists": {"domains": [path]}}).identity() for path in (one, same, longer)]
    assert identities[0] == identities[1] != identities[2]
    assert FetchSettings.model_validate({"blocklists": {"urls": [one]}}).identity() != identities[0]


def random_entries(count: int, width: int) -> entries.Entries:
    drawn = np.random.default_rng(width).integers(0, 256, (count, width), np.uint8)
    return entries.Entries(drawn, np.arange(1, count + 1))


def test_exact_lookup_in_a_large_set() -> None:
    drawn = random_entries(200_000, 32)
    drawn.keys[5, :8] = drawn.keys[6, :8]  # equal beginnings
    known = ExactSet.of(drawn)
    assert all(known.find(drawn.keys[row].tobytes()) == row + 1 for row in (0, 5, 6, 777, 199_999))
    assert not any(known.find(row.tobytes()) for row in random_entries(1000, 31).keys)
    assert known.head.nbytes + known.tail.nbytes + known.line.nbytes == 24 * 200_000


def test_near_lookup_finds_everything_within_31_bits_and_nothing_beyond() -> None:
    drawn, random = random_entries(20_000, 32), np.random.default_rng(1)
    known = NearSet.of(drawn)
    for row in range(300):
        bits = np.unpackbits(drawn.keys[row])
        flips = random.permutation(256)
        for count, wanted in ((0, row + 1), (int(random.integers(1, 32)), row + 1), (31, row + 1), (32, None)):
            changed = bits.copy()
            changed[flips[:count]] ^= 1
            assert known.find(np.packbits(changed).tobytes()) == wanted


def test_large_lists_are_kept_sorted_and_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(blocklist, "_LARGE", 1000)
    names = "".join(hashlib.sha256(str(row).encode()).hexdigest() + "\n" for row in range(20_000))
    first = lists(tmp_path, "hashes", names, "one.txt")
    assert len(list((tmp_path / "cache/curate/blocklists").iterdir())) == 1
    settings = BlockListSettings(hashes=(written(tmp_path, "two.txt", names),))
    tracemalloc.start()
    again = load(settings)
    assert tracemalloc.get_traced_memory()[1] < 640_000  # half of the text, and less than the entries as Python objects
    tracemalloc.stop()
    for row in (0, 12_345, 19_999):
        digest = hashlib.sha256(str(row).encode()).digest()
        assert (first.of_body(digest, None), again.of_body(digest, None)) == (
            Hit("blocklist:one.txt", str(row + 1)), Hit("blocklist:two.txt", str(row + 1)),
        )  # fmt: skip
    assert again.of_body(hashlib.sha256(b"-1").digest(), None) is None
    near = lists(tmp_path, "pdq", names, "pictures.txt")
    assert near._find("pdq", hashlib.sha256(b"77").digest()) == Hit("blocklist:pictures.txt", "78")
    assert lists(tmp_path, "pdq", names, "mapped.txt")._find("pdq", hashlib.sha256(b"77").digest()) is not None


def test_no_cache_folder_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(blocklist, "_LARGE", 1)
    assert lists(tmp_path, "domains", "a.example\nb.example\n").of_url("http://b.example/x") is not None


def test_listed_addresses_are_never_asked_for(server: FaultServer, tmp_path: Path) -> None:
    settings = quick(
        blocklists={
            "urls": [written(tmp_path, "urls.txt", f"{server.url('/image/1')}\n{server.url('/image/9')}\n")],
            "domains": [written(tmp_path, "domains.txt", "127.0.0.77\n")],
        }
    )
    addresses = [server.url("/image/1"), server.url("/image/2", host="127.0.0.77"), server.url("/image/2"), server.url("/hops/2")]
    found = fetch(addresses, settings)
    assert [row["reason"] for row in found] == ["blocklisted", "blocklisted", None, None]
    assert [(row["signal"], row["signal_value"]) for row in found][:2] == [("blocklist:urls.txt", "1"), ("blocklist:domains.txt", "1")]
    assert sorted({path for _, _, path in server.log}) == ["/hops/0", "/hops/1", "/hops/2", "/image/2"]
    assert all(row["sha256"] is None for row in found[:2])


def test_listed_redirect_targets_are_never_asked_for(server: FaultServer, tmp_path: Path) -> None:
    settings = quick(blocklists={"urls": [written(tmp_path, "urls.txt", server.url("/hops/0"))]})
    (found,) = fetch([server.url("/hops/1")], settings)
    assert (found["reason"], found["signal"], found["signal_value"], found["final_url"]) == (
        "blocklisted", "blocklist:urls.txt", "1", server.url("/hops/0"),
    )  # fmt: skip
    assert {path for _, _, path in server.log} == {"/hops/1"}


def test_listed_files_leave_no_bytes(server: FaultServer, tmp_path: Path) -> None:
    listed = hashlib.sha256(picture(3)).hexdigest()
    (found,) = fetch([server.url("/image/3")], quick(blocklists={"hashes": [written(tmp_path, "files.txt", listed)]}))
    assert (found["reason"], found["signal"], found["image"], found["sha256"]) == ("blocklisted", "blocklist:files.txt", None, listed)
