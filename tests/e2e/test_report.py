"""The demo's report: written by the run, written again by its command, and opened in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests.browser import opened
from tests.e2e.demo_pool import DemoPool


def test_the_run_leaves_a_report_with_the_pools_numbers(demo: DemoPool) -> None:
    text = (demo.path / "report" / "index.html").read_text(encoding="utf-8")
    counts = demo.sql("SELECT count(*) AS rows, count(*) FILTER (keep) AS kept FROM samples")[0]
    assert f"{counts['kept']:,} of {counts['rows']:,} input rows are kept" in text
    reasons = {line["reason"] for line in demo.sql("SELECT DISTINCT reason FROM samples WHERE reason IS NOT NULL")}
    assert not {reason for reason in reasons if reason not in text}
    for rule in ("clip_score_low", "image_small"):
        around = text[text.index(f"<h3>{rule}") :]
        assert all(f"Just {side}" in around for side in ("above", "below"))
    assert len(re.findall(r'<img [^>]*src="data:image/jpeg', text)) >= 20


def test_a_browser_opens_the_report_without_a_complaint(demo: DemoPool, tmp_path: Path, curate: Callable) -> None:
    said = curate("report", demo.path, "-o", tmp_path / "page.html", "--reveal")
    assert said.code == 0 and said.out.strip() == f"open {tmp_path / 'page.html'}"
    shown = opened(tmp_path / "page.html", tmp_path)
    assert shown.complaints == []
    assert shown.accent_share > 0.002, "the style sheet was refused, or nothing is kept"
