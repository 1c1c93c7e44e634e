"""What a fetch may do and how an image is kept; every default of the fetch phase stands here."""

from __future__ import annotations

import datetime
import ipaddress
import re
from typing import Literal

from pydantic import Field, field_validator

from curate.fetch.blocklist import BlockListSettings
from curate.fetch.politeness import Budget
from curate.fetch.proxy import check_proxy
from curate.media.image import ImageSettings
from curate.media.url import site
from curate.settings import Settings


class DomainSettings(Settings):
    """What was agreed with one domain; what is not said here is as for every domain."""

    in_flight: int | None = Field(default=None, ge=1)
    interval_seconds: float | None = Field(default=None, ge=0, description="holds also where robots.txt has a longer Crawl-delay")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _is_server(text: str) -> bool:
    """Whether this is the address of a name server: 9.9.9.9, 127.0.0.1:5353, 2620:fe::fe or [::1]:5353."""
    host, _, port = text.rpartition(":")
    return _is_address(text) or (_is_address(host) and port.isdigit() and 0 < int(port) < 65_536)


class FetchSettings(Settings):
    """Settings of the fetch phase: caps and manners of the requests, and the stored image (`image`).

    `verify_hash` says what becomes of a body that has not the sha256 or md5 that the list promised (list columns of
    these names). off: kept, with `hash_drift` true · drift: kept so only when it looks like what the list describes by
    `pdq` (PDQ) or `phash` (as in scores), else `hash_mismatch` · strict: `hash_mismatch`, and `hash_missing` where
    nothing is promised.
    """

    backend: Literal["curate", "img2dataset"] = Field(default="curate", description="who makes the requests; img2dataset only to compare")

    # what an answer may be
    max_bytes: int = Field(default=32 << 20, ge=1, description="largest body in bytes")
    max_redirects: int = Field(default=5, ge=0, le=20)
    max_url_characters: int = Field(default=8192, ge=16)
    max_header_bytes: int = Field(default=32 << 10, ge=1024, description="longest header line in bytes")
    allow_addresses: tuple[str, ...] = Field(default=(), description="CIDRs the guard lets through although they are not public")
    proxy: str | None = Field(
        default=None, description="http://HOST:PORT through which all requests go; http_proxy and the like are ignored"
    )
    opt_out: bool = Field(default=True, description="honour X-Robots-Tag and TDM-Reservation")
    opt_out_directives: tuple[str, ...] = ("noai", "noimageai", "noindex", "noimageindex", "none")
    opt_out_date: datetime.date | None = Field(
        default=None, description="day on which unavailable_after is judged; default the day of the pool's first fetch (UTC)"
    )
    robots: bool = Field(default=True, description="honour robots.txt (RFC 9309), and its Crawl-delay up to 30 s")
    robots_again_seconds: float = Field(
        default=86_400.0,
        gt=0,
        le=86_400,
        description="how long a robots.txt that could not be had forbids its host, before it is asked again",
    )
    tdm_file: bool = Field(default=True, description="honour /.well-known/tdmrep.json; with opt_out")
    verify_hash: Literal["off", "drift", "strict"] = Field(default="drift", description="what becomes of a body with another hash")
    blur_column: str | None = Field(default="auto", description="list column of boxes to blur; auto: boxes or face_bboxes; null: none")
    blocklists: BlockListSettings = BlockListSettings()
    image: ImageSettings = ImageSettings()

    # how to ask
    contact: str | None = Field(default=None, description="mail address or page of whoever runs this, for the user agent")
    robot_names: tuple[str, ...] = Field(default=("curate",), description="names under which robots.txt and headers may address us")
    attempts: int = Field(default=3, ge=1, le=10)
    connect_seconds: float = Field(default=5.0, gt=0)
    resolve_seconds: float = Field(default=5.0, gt=0)
    total_seconds: float = Field(default=30.0, gt=0, description="for one URL, with its redirects, retries and waits between them")
    min_bytes_per_second: float = Field(default=1024, ge=0, description="a body that comes slower is given up; 0: no floor")
    floor_seconds: float = Field(default=10.0, gt=0, description="the stretch of time over which that rate is judged")
    backoff_seconds: float = Field(default=0.5, ge=0, description="mean-doubling base of the full-jitter backoff")
    backoff_cap_seconds: float = Field(default=8.0, ge=0)
    host_in_flight: int = Field(default=2, ge=1, description="requests at once per registrable domain or address, on this machine")
    host_interval_seconds: float = Field(default=0.5, ge=0, description="between two starts at one domain, on this machine")
    domains: dict[str, DomainSettings] = Field(default={}, description="other budgets, by registrable domain or address")
    machines: int = Field(default=1, ge=1, description="on N machines each starts requests at 1/N of the rate")
    patience_seconds: float = Field(
        default=20.0, description="a row whose turn at its domain is further away ends as deferred_politeness; negative: rows wait"
    )

    # how the work is spread; equal results whatever stands here
    in_flight: int = Field(default=512, ge=1, description="requests at once per worker")
    parts_at_once: int = Field(
        default=8, ge=1, description="parts of one worker side by side, so that the slow end of one holds up no other"
    )
    resolvers: tuple[str, ...] = Field(default=(), description="addresses of name servers, with or without port; default this machine's")
    resolver_in_flight: int = Field(default=96, ge=1, description="names asked for at once per worker")
    local_fault_seconds: float = Field(default=300.0, gt=0, description="how long to wait out a fault of this machine")
    decode_seconds: float = Field(default=10.0, gt=0, description="CPU time that one image may take")
    decode_memory_bytes: int = Field(default=1 << 30, ge=64 << 20, description="memory that one image may take")
    batch_rows: int = Field(default=64, ge=1)
    rows_under_way: int = Field(default=4096, ge=1, description="rows of one worker that are being fetched or wait for their site")
    buffer_bytes: int = Field(
        default=48 << 20,
        ge=1 << 20,
        description="bodies held by one worker; beside them a quarter as much of finished images, the rest of which wait on disk",
    )

    def budgets(self) -> dict[str, Budget]:
        """The budgets of `domains`, whole."""
        return {
            name: Budget(
                self.host_in_flight if said.in_flight is None else said.in_flight,
                self.host_interval_seconds if said.interval_seconds is None else said.interval_seconds,
                fixed=said.interval_seconds is not None,
            )
            for name, said in self.domains.items()
        }

    @property
    def user_agent(self) -> str:
        """What servers see in the User-Agent header."""
        return f"curate/0.1 (image-text dataset builder; {'contact ' + self.contact if self.contact else 'no contact given'})"

    @field_validator("contact")
    @classmethod
    def _is_one_line(cls, value: str | None) -> str | None:
        if value is not None and not (value.isascii() and value.isprintable() and 3 <= len(value) <= 200):
            raise ValueError("contact must be 3 to 200 printable ASCII characters")
        return value

    @field_validator("resolvers")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not _is_server(text):
                raise ValueError(f"{text!r} is not the address of a name server, such as 9.9.9.9 or 127.0.0.1:5353")
        return value

    @field_validator("allow_addresses")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            ipaddress.ip_network(text)
        return value

    @field_validator("proxy")
    @classmethod
    def _is_plain_proxy(cls, value: str | None) -> str | None:
        return None if value is None else check_proxy(value)

    @field_validator("domains")
    @classmethod
    def _are_sites(cls, value: dict[str, DomainSettings]) -> dict[str, DomainSettings]:
        for name in value:
            if site(name) != name:
                raise ValueError(f"budgets are kept per registrable domain: write {site(name)!r}, not {name!r}")
        return value

    @field_validator("robot_names")
    @classmethod
    def _are_tokens(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z_-]+", name):
                raise ValueError(f"{name!r} is no product token: RFC 9309 allows letters, _ and -")
        return value

    def identity(self) -> dict[str, object]:
        """The settings on which the outcome of a request depends, JSON-able; speed and manners left out.

        A pool fetched with another deadline or user agent is not stale; one with another size or cap is. Rules that are
        off are left out, so that a pool from before there were any can go on without them.
        """
        names = (
            "max_bytes", "max_redirects", "opt_out", "opt_out_directives", "opt_out_date", "robot_names",
            "verify_hash", "blur_column", "image",
        )  # fmt: skip
        rules = {name: True for name in ("robots", "tdm_file") if getattr(self, name)}
        return {**self.model_dump(mode="json", include=set(names)), **rules, "blocklists": self.blocklists.identity()}
