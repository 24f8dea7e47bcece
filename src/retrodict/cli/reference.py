"""The page on the command line, made from what `--help` says.

`python -m retrodict.cli.reference` in the root of the repository writes `docs/cli.md`; a test compares the two.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import textwrap
from pathlib import Path
from unittest import mock

from retrodict.cli import COMMANDS, main, overview
from retrodict.files import write_text

COLUMNS = 100

HEAD = """# Command line

Generated from `--help`. `retrodict train SYSTEM --help` shows the options of one system; they are the fields of its dataclass.
"""


def page() -> str:
    """`docs/cli.md`."""
    parts = [HEAD, _block(overview())]
    for name, summary in COMMANDS.items():
        parts.append(f"## retrodict {name}\n\n{summary[0].upper()}{summary[1:]}.\n\n{_block(shown(name, '--help'))}")
    return "\n".join(parts)


def shown(*argv: str) -> str:
    """What a command line prints, without colours, at a fixed width."""
    target = io.StringIO()
    plain = {"COLUMNS": str(COLUMNS), "NO_COLOR": "1", "TERM": "dumb"}
    with mock.patch.dict(os.environ, plain), contextlib.redirect_stdout(target):
        main(argv)
    text = re.sub(r"\x1b\[[0-9;]*m", "", target.getvalue())
    return "\n".join(textwrap.fill(line.rstrip(), COLUMNS) for line in text.splitlines())


def _block(text: str) -> str:
    return f"```text\n{text.strip()}\n```\n"


if __name__ == "__main__":
    write_text(Path("docs/cli.md"), page())
    print("docs/cli.md")
