"""The command `curate`: words at a terminal become calls of the library, its answers become lines and exit codes."""

from __future__ import annotations


def main() -> None:
    """Entry point of the command; never returns."""
    try:
        from curate.cli.app import main as run
    except KeyboardInterrupt:
        raise SystemExit(1) from None
    run()
