"""What a verification found: named checks, each with how much it looked at and what was wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field

from curate.errors import AccountingError

NAMED_OFFENDERS = 5


@dataclass
class Check:
    """One promise of a pool; `checked` counts the things looked at, `failures` those that broke it."""

    name: str
    promise: str
    checked: int = 0
    failures: int = 0
    offenders: list[str] = field(default_factory=list)  # the first few, each one line
    notes: list[str] = field(default_factory=list)  # what is right as far as it goes, each one line

    @property
    def ok(self) -> bool:
        """Whether nothing broke the promise."""
        return self.failures == 0

    def fail(self, offender: str, count: int = 1) -> None:
        """Notes something that breaks the promise."""
        self.failures += count
        if len(self.offenders) < NAMED_OFFENDERS:
            self.offenders.append(offender)

    def require(self, is_fine: bool, offender: str) -> None:
        """Looks at one thing."""
        self.checked += 1
        if not is_fine:
            self.fail(offender)

    def require_none(self, offenders: Iterable[str], checked: int) -> None:
        """Looked at `checked` things, of which these are wrong."""
        self.checked += checked
        for offender in offenders:
            self.fail(offender)


@dataclass(frozen=True)
class VerifyReport:
    """All checks of one verification; `deep` tells whether bytes were read and hashed."""

    checks: tuple[Check, ...]
    deep: bool

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(check.ok for check in self.checks)

    def require(self) -> None:
        """Raises AccountingError naming the first offender when a check failed."""
        broken = [check for check in self.checks if not check.ok]
        if broken:
            more = f" (and {len(broken) - 1} more checks)" if len(broken) > 1 else ""
            raise AccountingError(f"{broken[0].name}: {broken[0].offenders[0]}{more}; see  curate verify")

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {"ok": self.ok, "deep": self.deep, "checks": [dataclasses.asdict(check) | {"ok": check.ok} for check in self.checks]}

    def text(self) -> str:
        """Lines for a terminal: one per check, offenders under it."""
        lines = []
        for check in self.checks:
            lines.append(f"{'ok    ' if check.ok else 'FAILED'}  {check.name:<20} {check.checked:>10,}  {check.promise}")
            lines += [f"        {told}" for told in (*check.offenders, *check.notes)]
            if check.failures > len(check.offenders):
                lines.append(f"        … and {check.failures - len(check.offenders):,} more")
        return "\n".join(lines) + "\n"
