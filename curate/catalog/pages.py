"""Pages that need nothing but themselves: no script, no request.

Their content security policy allows data: images and the one style sheet, by its hash. All text from the pool is escaped,
control and direction characters are spelt out.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from curate.catalog.charts import histogram, number, plain_bar, stacked_bar
from curate.catalog.sql import printable
from curate.errors import LocalFault
from curate.objects import ObjectPath

_PAGE = Path(__file__).parent / "page"


def render(template: str, content: Mapping[str, Any]) -> str:
    """A template of the folder `page`, with the filters and charts that all share."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_PAGE), autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters.update(plain=_plain, plain_lines=_plain_lines, number=number)
    environment.globals.update(stacked_bar=stacked_bar, plain_bar=plain_bar, histogram=histogram, most=_most)
    style = (_PAGE / "report.css").read_text(encoding="utf-8")
    sha256 = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return environment.get_template(template).render(style=Markup(style), style_sha256=sha256, **content)


def write_page(page: str, out: Path) -> Path:
    """Puts a page at `out` (a .html file, or a folder that gets index.html) at once and whole; returns its path. Raises LocalFault."""
    path = out if out.suffix in (".html", ".htm") else out / "index.html"
    try:
        if isinstance(path, ObjectPath):
            path.write_text(page)
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise LocalFault(f"cannot write {path}: {error.strerror or error}") from None
    return path


def veil_text(column: str | None) -> str:
    """Why pictures are blurred."""
    if column is None:
        return "No score for unsafe content covers this pool, so all pictures are blurred."
    return f"Pictures that {printable(column)} flags or does not cover are blurred."


def _plain(text: object) -> str:
    return printable(str(text))


def _plain_lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.splitlines())


def _most(lines: Sequence[tuple[str, dict[str, int]]]) -> int:
    """Rows of the longest line; all bars of a table share its scale."""
    return max((sum(counts.values()) for _, counts in lines), default=0)
