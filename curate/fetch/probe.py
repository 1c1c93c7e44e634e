"""How good this machine's resolver is, measured in a few seconds: what `curate doctor` says about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from curate.errors import LocalFault
from curate.fetch.failures import ResolverSilent
from curate.fetch.resolver import Resolver

NAMES = (
    "commons.wikimedia.org", "upload.wikimedia.org", "www.wikipedia.org", "live.staticflickr.com", "i.pinimg.com", "cdn.shopify.com",
    "images.unsplash.com", "i.imgur.com", "www.nasa.gov", "www.loc.gov", "www.europeana.eu", "archive.org", "www.bbc.co.uk",
    "media.istockphoto.com", "i.ytimg.com", "www.python.org", "www.w3.org", "www.gutenberg.org", "www.mozilla.org", "www.debian.org",
    "www.nature.com", "www.rijksmuseum.nl", "www.metmuseum.org", "openclipart.org",
)  # fmt: skip
"""Hosts that have long been there, for one lookup each."""


@dataclass(frozen=True)
class Probe:
    """What was seen: `found` of `asked` names have addresses, `silent` got no answer at all.

    `first_seconds` is the median of the first answers, `again_seconds` that of the same questions a moment later, and
    `per_second` how many of those were answered in a second.
    """

    servers: tuple[str, ...]
    asked: int
    found: int
    silent: int
    first_seconds: float = 0.0
    again_seconds: float = 0.0
    per_second: float = 0.0


def probe(servers: Sequence[str] = (), names: Sequence[str] = NAMES, patience_seconds: float = 1.5, burst_seconds: float = 1.0) -> Probe:
    """Asks for each name once, then again and again for `burst_seconds`; ends within about 2 x patience + burst."""
    return asyncio.run(_probe(servers, names, patience_seconds, burst_seconds))


async def _probe(servers: Sequence[str], names: Sequence[str], patience_seconds: float, burst_seconds: float) -> Probe:
    first = Resolver(servers, patience_seconds, len(names), 2 * patience_seconds)
    try:
        asked_of = tuple(first.servers)
        found, silent = await _round(first, names, patience_seconds)
    finally:
        await first.close()
    asked, median = len(names), first.statistics.median_seconds
    if not found:
        return Probe(asked_of, asked, found, silent, median)
    again_seconds, per_second = await _burst(servers, names, patience_seconds, burst_seconds)
    return Probe(asked_of, asked, found, silent, median, again_seconds, per_second)


async def _round(resolver: Resolver, names: Sequence[str], patience_seconds: float) -> tuple[int, int]:
    """(names with addresses, names without any answer)."""

    async def ask(name: str) -> bool | None:
        try:
            async with asyncio.timeout(patience_seconds):
                return bool(await resolver.lookup(name))
        except (ResolverSilent, LocalFault, TimeoutError):
            return None
        except OSError:
            return False

    answers = await asyncio.gather(*(ask(name) for name in names))
    return answers.count(True), answers.count(None)


async def _burst(servers: Sequence[str], names: Sequence[str], patience_seconds: float, seconds: float) -> tuple[float, float]:
    """(median seconds, answers a second) of questions that the resolver has answered before; each round without our cache."""
    begun, answered, medians = time.monotonic(), 0, []
    while time.monotonic() - begun < seconds:
        resolver = Resolver(servers, patience_seconds, len(names), patience_seconds)
        try:
            found, _ = await _round(resolver, names, patience_seconds)
        finally:
            await resolver.close()
        answered += found
        medians.append(resolver.statistics.median_seconds)
    return sorted(medians)[len(medians) // 2], answered / (time.monotonic() - begun)
