"""Hosts of a list are counted in any spelling, format and amount."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from curate.plan import InputSettings, hosts
from curate.plan.hosts import count_hosts
from curate.plan.survey import survey

URLS = [
    "http://a.example/1", "HTTPS://A.example:443/2", " http://a.example?q", "https://user@b.example/x", "http://[::1]:80/y", "http://a.example#z",
    "ftp://c.example/", "nonsense", "", "http://", "https://bücher.example/ä",
]  # fmt: skip
EXPECTED = {"a.example": 4, "b.example": 1, "[::1]": 1, "bücher.example": 1}


def counted(path: Path) -> Counter[str]:
    settings = InputSettings(path=str(path))
    return count_hosts(survey(settings), settings)


def test_hosts_of_every_spelling(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("url,caption\n" + "".join(f'"{url}",x\n' for url in URLS), encoding="utf-8")
    assert counted(path) == EXPECTED


def test_bytes_that_are_no_text_hide_no_neighbour(tmp_path: Path) -> None:
    path = tmp_path / "list.tsv"
    path.write_bytes(b"url\tcaption\nhttp://a.example/1\tx\nhttp://\xff\xfe/2\ty\nhttp://a.example/3\tz\n")
    assert counted(path)["a.example"] == 2


def test_rare_hosts_are_forgotten_before_memory_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "MAX_HOSTS", 10)
    for number in range(3):
        rare = [f"http://host{number}-{at}.example/" for at in range(9)]
        (tmp_path / f"{number}.txt").write_text("\n".join([*rare, "http://often.example/", "http://often.example/2"]))
    found = counted(tmp_path)
    assert found["often.example"] == 6 and len(found) <= 10
