"""`retrodict systems`: the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from retrodict.cli import show
from retrodict.cli.arguments import parse

if TYPE_CHECKING:
    from retrodict.reports.catalogue import Entry

Role = Literal["InverseModel", "Encoder", "Policy", "ForwardModel", "Law", "Generator", "Curator", "Analysis"]


def run(argv: Sequence[str]) -> None:
    parse(systems, argv, "systems")


def systems(
    system: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[SYSTEM]", help_behavior_hint="")] = None,
    /,
    role: Annotated[Role | None, tyro.conf.arg(metavar="ROLE")] = None,
    results: Path = Path("results"),
    json: bool = False,
) -> None:
    """List the systems: what each recovers, what it reads and returns, and whether its published claim was reproduced here.

    Example: retrodict systems vpt

    Args:
        system: show the whole card of this one.
        role: only those that play this role (InverseModel, Encoder, Policy, ForwardModel, Law, Generator, Curator, Analysis).
        results: folder of the results files that `retrodict reproduce` writes.
        json: print JSON.
    """
    from retrodict.reports.catalogue import NO_RESULTS, entries
    from retrodict.systems import lookup

    found = [entry for entry in entries(results) if role is None or role in entry.roles]
    if system is not None:
        lookup(system)  # refuses what is not there, naming what is
        found = [entry for entry in found if entry.slug == system]
    if json:
        show.as_json(found)
    elif system is not None:
        for entry in found:
            _card(entry)
    else:
        rows = ((e.slug, e.paper, ", ".join(e.roles), e.reads, e.reproduced) for e in found)
        show.table(("system", "paper", "recovers as", "reads", "claim"), rows)
        show.say("\n`retrodict systems SYSTEM` shows a whole card, `retrodict train SYSTEM --help` its options.")
    if not json and any(entry.reproduced == NO_RESULTS for entry in found):
        show.say(
            f"There is no folder {results}: what was measured stands in RESULTS.md and results/ of the repository (--results "
            "names another place for it), and `retrodict reproduce SYSTEM` measures it again."
        )


def _card(entry: Entry) -> None:
    show.say(f"{entry.slug}  (in Python: retrodict.{entry.name})")
    show.say(f"{entry.title}. {entry.authors}, {entry.year}. {entry.url}".rstrip())
    for name, text in (("claim", entry.claim), ("roles", ", ".join(entry.roles)), ("reads", entry.reads),
                       ("returns", entry.returns), ("reproduced", entry.reproduced)):  # fmt: skip
        show.say(f"  {name:<11}{text}")
