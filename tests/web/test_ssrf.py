"""No spelling, redirect, name or proxy variable makes the fetcher dial a private address; the dialled are really there.

All of it runs in a network namespace in which those addresses are bound and answer. The guard is as it comes; the same
URLs with the guard taken out reach them, so these tests can fail.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest

from tests.web import spellings
from tests.web.spellings import PRIVATE_V4, PUBLIC, PUBLIC_V6

OUR_OWN = {f"{PUBLIC}:80", f"{PUBLIC_V6}:80"}


def can_unshare() -> bool:
    """Whether this process may make network and mount namespaces."""
    if os.geteuid() or not shutil.which("unshare") or not shutil.which("ip"):
        return False
    return subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What `tests.web.namespace` says."""
    if not can_unshare():
        pytest.skip("needs root and network namespaces (unshare and ip)")
    command = ["unshare", "--net", "--mount", sys.executable, "-m", "tests.web.namespace"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def private(dialled: dict[str, int]) -> dict[str, int]:
    """Those of the dialled that are not the two public addresses."""
    return {address: count for address, count in dialled.items() if address not in OUR_OWN}


def test_public_addresses_are_fetched(found: dict[str, Any]) -> None:
    assert set(found["public"]["reasons"].values()) == {None}
    assert set(found["public"]["dialled"]) == OUR_OWN


def test_no_spelling_of_a_private_address_is_dialled(found: dict[str, Any]) -> None:
    reasons = found["direct"]["reasons"]
    assert len(reasons) >= 600
    assert found["direct"]["dialled"] == {}
    assert set(reasons.values()) <= {"blocked_address", "bad_url", "bad_scheme", "dns_not_found", "connect_failed"}  # 010.0.0.1 is 8.0.0.1
    plain = [f"http://{host}/image/1" for host in (*PRIVATE_V4, "localhost", "ten.test", "v6.test", "[::1]", "[fd00:ec2::254]")]
    assert {reasons[url] for url in plain} == {"blocked_address"}


def test_no_redirect_leads_to_a_private_address(found: dict[str, Any]) -> None:
    reasons = found["sent"]["reasons"]
    assert len(reasons) >= 190
    assert private(found["sent"]["dialled"]) == {}
    assert None not in reasons.values()
    for code in (301, 302, 303, 307, 308):
        assert reasons[f"http://{PUBLIC}/to/{code}?http%3A%2F%2F10.1.2.3%2Fimage%2F1"] == "blocked_address"
        assert reasons[f"http://{PUBLIC}/to/{code}?file%3A%2F%2F%2Fetc%2Fhostname"] == "bad_scheme"
    assert reasons[f"http://{PUBLIC}/chain/3?http%3A%2F%2F10.1.2.3%2Fimage%2F1"] == "blocked_address"


def test_robots_files_lead_to_no_private_address_either(found: dict[str, Any]) -> None:
    assert len(found["own_files"]["reasons"]) >= 600
    assert private(found["own_files"]["dialled"]) == {}
    assert found["own_files"]["dialled"][f"{PUBLIC}:80"] >= 2


def test_names_that_change_their_mind_are_fetched_from_the_public_address_or_not_at_all(found: dict[str, Any]) -> None:
    reasons = list(found["rebinding"]["reasons"].values())
    assert len(reasons) == 500 and found["questions"] >= 500
    assert private(found["rebinding"]["dialled"]) == {}
    assert reasons.count(None) + reasons.count("blocked_address") == 500
    assert reasons.count(None) >= 100 and reasons.count("blocked_address") >= 50


def test_without_the_guard_the_same_urls_reach_private_addresses(found: dict[str, Any]) -> None:
    reached = {ipaddress.ip_address(address.rpartition(":")[0]) for address in private(found["open_direct"]["dialled"])}
    assert len(reached) >= 40
    assert {ipaddress.ip_address(text) for text in (*PRIVATE_V4, "fd00:ec2::254", "fec0::1") if text != "0.0.0.0"} <= reached
    assert sum(private(found["open_direct"]["dialled"]).values()) >= 200
    assert sum(private(found["open_sent"]["dialled"]).values()) >= 40
    assert sum(private(found["open_rebinding"]["dialled"]).values()) >= 200


def test_the_lists_have_no_url_twice() -> None:
    for urls in (spellings.direct(), spellings.sent()):
        assert len(urls) - len(set(urls)) < len(urls) // 10
