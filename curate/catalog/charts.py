"""Charts of the report as inline SVG: no script, no style attribute, colours from the page's classes."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from curate.catalog.cuts import Cut
from curate.catalog.gather import Distribution

FATES = ("kept", "dropped", "failed", "pending")
WIDE, NARROW, HEIGHT = 430, 320, 160  # text is 11 units high, whatever width the page gives
_LEFT, _RIGHT, _TOP, _BOTTOM = 4, 4, 26, 24


def stacked_bar(counts: Mapping[str, int], total: int, label: str, kinds: Iterable[str] = FATES) -> Markup:
    """One bar whose pieces are rows by how they ended, or other `kinds` that the page has a colour for; `total` rows wide."""
    pieces, at = [], 0.0
    for outcome in kinds:
        width = 100 * counts.get(outcome, 0) / total if total else 0.0
        if width:
            title = f"{outcome}: {counts[outcome]:,}"
            pieces.append(f'<rect class="{outcome}" x="{at:.3f}" width="{width:.3f}" height="8"><title>{title}</title></rect>')
            at += width
    return _svg("bar", "0 0 100 8", label, pieces, stretch=True)


def plain_bar(rows: int, total: int, kind: str, label: str) -> Markup:
    """One bar of one kind, `total` rows wide; what is there at all can be seen."""
    width = max(100 * rows / total, 0.35) if total and rows else 0.0
    return _svg("bar", "0 0 100 8", label, [f'<rect class="{html.escape(kind)}" width="{width:.3f}" height="8"/>'], stretch=True)


def histogram(drawn: Distribution, cut: Cut | None = None) -> Markup:
    """Kept rows below, the others on top of them; the cut as a line, the failing side shaded."""
    axis = _Axis(drawn, WIDE if cut else NARROW)
    parts = [*_shade(axis, cut), *_columns(axis, drawn), *_ticks(axis), *_line(axis, cut)]
    label = f"Distribution of {drawn.label} over {drawn.rows:,} rows" + (f", cut at {number(cut.value)}" if cut else "")
    return _svg("histogram", f"0 0 {axis.width} {HEIGHT}", label, parts)


@dataclass(frozen=True)
class Whisker:
    """A value with the ends of its interval, in the colour of `kind`."""

    kind: str
    value: float
    low: float
    high: float


def whiskers(groups: Sequence[tuple[str, Sequence[Whisker]]], label: str) -> Markup:
    """A group below the other, each value a dot on its interval, all on one scale."""
    every = [one for _, group in groups for one in group]
    low, high = min(one.low for one in every), max(one.high for one in every)
    width, step, left = 640, 14, 150
    parts, y = [], 8.0
    for name, group in groups:
        parts.append(f'<text x="{left - 10}" y="{y + step * len(group) / 2 - 3:.1f}" text-anchor="end">{html.escape(name[:24])}</text>')
        for one in group:
            at = [left + (width - left - 20) * (value - low) / ((high - low) or 1) for value in (one.low, one.value, one.high)]
            title = f"{name}: {one.value:.3f}, {one.low:.3f} to {one.high:.3f}"
            bar = _rect(one.kind, at[0], y - 1, max(at[2] - at[0], 1.0), 2)
            dot = f'<circle class="{html.escape(one.kind)}" cx="{at[1]:.1f}" cy="{y:.1f}" r="4"/>'
            parts.append(f"<g>{bar}{dot}<title>{html.escape(title)}</title></g>")
            y += step
        y += step / 2
    ends = [(left, "start", low), (width - 20, "end", high)]
    parts += [f'<text x="{x}" y="{y + 6:.1f}" text-anchor="{anchor}">{value:.3f}</text>' for x, anchor, value in ends]
    return _svg("whiskers", f"0 0 {width} {y + 12:.0f}", label, parts)


class _Axis:
    """Places values along the width."""

    def __init__(self, drawn: Distribution, width: int) -> None:
        self.width, self.right = width, width - _RIGHT
        self.low, self.high, self.logarithmic = drawn.edges[0], drawn.edges[-1], drawn.logarithmic

    def x(self, value: float) -> float:
        """Position of a value, kept inside the chart."""
        low, high, at = (math.log(v) if self.logarithmic else v for v in (self.low, self.high, max(value, 1e-12)))
        if not self.logarithmic:
            at = value
        share = (at - low) / (high - low) if high > low else 0.5
        return _LEFT + min(max(share, 0.0), 1.0) * (self.right - _LEFT)

    def ticks(self) -> list[float]:
        """Round values inside the range."""
        if self.logarithmic:
            powers = [m * 10.0**e for e in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1) for m in (1, 3)]
            inside = [value for value in powers if self.low <= value <= self.high]
            return inside[:: max(1, math.ceil(len(inside) / (self.width / 70)))]
        step = _round_step((self.high - self.low) / (self.width / 80))
        first = math.ceil(self.low / step) * step
        return [first + n * step for n in range(int((self.high - first) / step + 1e-9) + 1)]


def _round_step(wanted: float) -> float:
    power = 10.0 ** math.floor(math.log10(wanted)) if wanted > 0 else 1.0
    return next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= wanted - 1e-12 * power)


def _columns(axis: _Axis, drawn: Distribution) -> list[str]:
    """Square roots of counts would flatter the tails; heights are counts."""
    highest = max((k + o for k, o in zip(drawn.kept, drawn.other, strict=True)), default=0) or 1
    full, floor = HEIGHT - _TOP - _BOTTOM, HEIGHT - _BOTTOM
    columns = []
    for bin_, (kept, other) in enumerate(zip(drawn.kept, drawn.other, strict=True)):
        if not kept + other:
            continue
        start, end = axis.x(drawn.edges[bin_]), axis.x(drawn.edges[bin_ + 1])
        width, title = (
            max(end - start - 1, 0.8),
            f"{number(drawn.edges[bin_])} to {number(drawn.edges[bin_ + 1])}: {kept:,} kept, {other:,} not",
        )
        tall = [full * count / highest for count in (kept, other)]
        rects = [
            _rect("kept", start, floor - tall[0], width, tall[0]),
            _rect("dropped", start, floor - tall[0] - tall[1], width, tall[1]),
        ]
        columns.append(f"<g>{''.join(rects)}<title>{title}</title></g>")
    return columns


def _rect(kind: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>' if height > 0 else ""


def _shade(axis: _Axis, cut: Cut | None) -> list[str]:
    if cut is None:
        return []
    at = axis.x(cut.value)
    start, end = (_LEFT, at) if cut.fails_below else (at, axis.right)
    return [_rect("failing", start, _TOP, end - start, HEIGHT - _TOP - _BOTTOM)]


def _line(axis: _Axis, cut: Cut | None) -> list[str]:
    if cut is None:
        return []
    at = axis.x(cut.value)
    anchor = "start" if at < 30 else "end" if at > axis.width - 30 else "middle"
    return [
        f'<line class="cut" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP - 6}" y2="{HEIGHT - _BOTTOM}"/>',
        f'<text class="cut" x="{at:.1f}" y="{_TOP - 11}" text-anchor="{anchor}">{number(cut.value)}</text>',
    ]


def _ticks(axis: _Axis) -> list[str]:
    floor = HEIGHT - _BOTTOM
    drawn = [f'<line class="axis" x1="{_LEFT}" x2="{axis.right}" y1="{floor}" y2="{floor}"/>']
    for value in axis.ticks():
        at = axis.x(value)
        anchor = "start" if at < _LEFT + 12 else "end" if at > axis.right - 12 else "middle"
        drawn.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{floor}" y2="{floor + 4}"/>')
        drawn.append(f'<text x="{at:.1f}" y="{HEIGHT - 5}" text-anchor="{anchor}">{number(value)}</text>')
    return drawn


def number(value: float) -> str:
    """A number as people write it: thousands separated, no digits that say nothing."""
    if value == round(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _svg(kind: str, box: str, label: str, parts: Sequence[str], stretch: bool = False) -> Markup:
    """An `img` to screen readers; `label` is all that they hear."""
    how = ' preserveAspectRatio="none"' if stretch else ""
    return Markup(f'<svg class="{kind}" viewBox="{box}"{how} role="img" aria-label="{html.escape(label)}">{"".join(parts)}</svg>')
