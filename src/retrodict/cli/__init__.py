"""The command line: one file per command. Each is imported when it is asked for, so that `retrodict --help` answers at once."""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from retrodict._version import __version__
from retrodict.errors import RetrodictError

COMMANDS = {
    "info": "what recordings hold, what their numbers mean, and what had to be guessed",
    "convert": "between kinds of recordings; says what it guesses before it writes",
    "record": "episodes of a game or simulator, played by a scripted player or a model",
    "align": "whether video and actions are in step, and by how many steps they are not",
    "label": "infer the actions that recordings lack, with a calibrated confidence",
    "train": "fit a system to recordings",
    "fit-law": "the law behind a recorded series, with a verdict and a report",
    "evaluate": "play a policy in its world and say how well it does, with an interval",
    "systems": "the catalogue: every system, what it reads and returns, what was reproduced",
    "reproduce": "run the experiment that tests a system's published claim",
}

ONLY_READ = ("info", "align", "evaluate", "systems")
MENDABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code is 0 for success, 2 for what the user can mend, 130 when stopped by Ctrl-C.

    A fault of retrodict itself is not caught: Python prints where it happened and exits with 1.
    """
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help", "help"):
        print(overview())
        return 0
    if name == "--version":
        print(f"retrodict {__version__}")
        return 0
    if name not in COMMANDS:
        return complain(f"there is no command {name!r}{_meant(name)} `retrodict --help` lists them.")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = partial(_warn, name, warnings.showwarning)
            importlib.import_module(f"retrodict.cli.{name.replace('-', '_')}").run(rest)
    except RetrodictError as error:
        return complain(" ".join(str(error).split()), name)
    except KeyboardInterrupt:
        kept = "nothing was changed" if name in ONLY_READ else "what was finished is kept, and the same command carries on"
        complain(f"stopped; {kept}.", name)
        return 130
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in MENDABLE:
            raise
        return complain(f"{error.filename or 'the disk'}: {error.strerror}.", name)
    except SystemExit as leaving:  # the parser's way to end after --help (0) or a misspelt option (2)
        return leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 2
    return 0


def overview() -> str:
    """What `retrodict --help` prints."""
    lines = [
        "retrodict: recover the action behind a recording and the law behind a motion.",
        "",
        "usage: retrodict COMMAND ...      (retrodict COMMAND --help explains one, with an example)",
        "",
        *(f"  {name:<11}{summary}" for name, summary in COMMANDS.items()),
        "",
        "From few labelled recordings to a policy:",
        "",
        "  retrodict label play --out labelled --max-error 0.05",
        "  retrodict train behavior-cloning labelled --out policy",
        "  retrodict evaluate policy vizdoom/health-gathering",
        "",
        "Exit codes: 0 done, 2 something to mend (one sentence says what), 130 stopped, 1 a fault of retrodict.",
    ]
    return "\n".join(lines)


def complain(sentence: str, command: str = "") -> int:
    """Say on standard error what is wrong; returns the exit code for it."""
    print(f"retrodict {command}: {sentence}" if command else f"retrodict: {sentence}", file=sys.stderr)
    return 2


def _warn(command: str, plainly: Callable[..., None], message: Warning | str, category: type[Warning], *where: Any) -> None:
    """Say a warning of ours as a sentence, without the line of code that it comes from."""
    if category is UserWarning:
        print(f"retrodict {command}: warning: {' '.join(str(message).split())}", file=sys.stderr)
    else:
        plainly(message, category, *where)


def _meant(name: str) -> str:
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    return f"; did you mean {close[0]!r}?" if close else ";"
