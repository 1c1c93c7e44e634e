"""`python -m curate`: the command line, for machines where the command is not on the path."""

from __future__ import annotations

from curate.cli import main

if __name__ == "__main__":
    main()
