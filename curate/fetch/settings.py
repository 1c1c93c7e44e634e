"""What a fetch may do and how an image is kept; every default of the fetch phase stands here."""

from __future__ import annotations

import datetime
import ipaddress
from typing import Literal

from pydantic import Field, field_validator

from curate.media.image import ImageSettings
from curate.settings import Settings


class FetchSettings(Settings):
    """Settings of the fetch phase: caps and manners of the requests, and the stored image (`image`)."""

    backend: Literal["curate", "img2dataset"] = Field(default="curate", description="who makes the requests; img2dataset only to compare")

    # what an answer may be
    max_bytes: int = Field(default=32 << 20, ge=1, description="largest body in bytes")
    max_redirects: int = Field(default=5, ge=0, le=20)
    max_url_characters: int = Field(default=8192, ge=16)
    max_header_bytes: int = Field(default=32 << 10, ge=1024, description="longest header line in bytes")
    allow_addresses: tuple[str, ...] = Field(default=(), description="CIDRs the guard lets through although they are not public")
    opt_out: bool = Field(default=True, description="honour X-Robots-Tag and TDM-Reservation")
    opt_out_directives: tuple[str, ...] = ("noai", "noimageai", "noindex", "noimageindex", "none")
    opt_out_date: datetime.date | None = Field(default=None, description="day on which unavailable_after is judged; default today (UTC)")
    image: ImageSettings = ImageSettings()

    # how to ask
    contact: str | None = Field(default=None, description="mail address or page of whoever runs this, for the user agent")
    robot_names: tuple[str, ...] = Field(default=("curate",), description="names under which header rules may address us")
    attempts: int = Field(default=3, ge=1, le=10)
    connect_seconds: float = Field(default=5.0, gt=0)
    resolve_seconds: float = Field(default=5.0, gt=0)
    total_seconds: float = Field(default=30.0, gt=0, description="for one URL, with its redirects, retries and waits between them")
    backoff_seconds: float = Field(default=0.5, ge=0, description="mean-doubling base of the full-jitter backoff")
    backoff_cap_seconds: float = Field(default=8.0, ge=0)
    host_in_flight: int = Field(default=2, ge=1, description="requests at once per registrable domain or address, all workers together")
    host_interval_seconds: float = Field(default=0.5, ge=0, description="between two starts at one domain, all workers together")

    # how the work is spread; equal results whatever stands here
    in_flight: int = Field(default=256, ge=1, description="requests at once per worker")
    resolver_threads: int = Field(default=32, ge=1)
    codec_threads: int = Field(default=1, ge=1, description="threads per worker that decode and encode")
    batch_rows: int = Field(default=64, ge=1)
    lookahead_rows: int = Field(default=4096, ge=1, description="rows under way in one worker")
    buffer_bytes: int = Field(default=64 << 20, ge=1 << 20, description="bodies and images held by one worker")

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

    @field_validator("allow_addresses")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            ipaddress.ip_network(text)
        return value

    def identity(self) -> dict[str, object]:
        """The settings on which the outcome of a request depends, JSON-able; speed and manners left out.

        A pool fetched with another deadline or user agent is not stale; one with another size or cap is.
        """
        names = ("max_bytes", "max_redirects", "opt_out", "opt_out_directives", "opt_out_date", "robot_names", "image")
        return self.model_dump(mode="json", include=set(names))
