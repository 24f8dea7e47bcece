"""`retrodict reproduce`: does the published claim hold here?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from retrodict.cli import show
from retrodict.cli.arguments import parse

if TYPE_CHECKING:
    from retrodict.claims import Check


def run(argv: Sequence[str]) -> None:
    parse(reproduce, argv, "reproduce")


def reproduce(
    system: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[SYSTEM]", help_behavior_hint="")] = None,
    /,
    quick: bool = False,
    seeds: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N ...", help_behavior_hint="(default: the experiment's own)")] = (),
    arms: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ARM ...", help_behavior_hint="(default: all)")] = (),
    jobs: int = 1,
    work: Path = Path("runs/claims"),
    results: Path = Path("results"),
    json: bool = False,
) -> None:
    """Run the experiment that tests the published claim of a system, and judge it by thresholds that were set beforehand.

    Every arm writes its numbers when it ends, so a run that was stopped carries on with the same command. The full run writes
    results/SYSTEM.json, whether the claim holds or not.

    Example: retrodict reproduce vpt --quick

    Args:
        system: which one; without it, list those that have an experiment.
        quick: a smaller run of the same experiment, in about a minute, that is never reported.
        seeds: seeds to run.
        arms: run these arms only, and those they need; the others are judged where they were run before.
        jobs: processes among which arms and seeds are shared out.
        work: folder for what the arms write.
        results: folder for the results file.
        json: print JSON.
    """
    from retrodict import claims

    if system is None:
        known = claims.claims()
        if json:
            show.as_json(known)
        else:
            show.say("Systems with an experiment: " + (", ".join(known) or "none yet"))
        return
    report = None if json else _progress
    entry = claims.reproduce(
        system, seeds=seeds or None, quick=quick, arms=arms or None, jobs=jobs, work=work, results=results, report=report
    )
    if json:
        show.as_json(entry)
    else:
        _print(entry)


def _progress(arm: str, checks: Sequence[Check]) -> None:
    show.say(f"done: {arm}")
    for check in checks:
        show.say(f"    {check.name}: {check.value:.4g} (asked {check.asked}: {'holds' if check.holds else 'does not hold'})")


def _print(entry: dict[str, Any]) -> None:
    show.heading(f"{entry['slug']}: {entry['claim']}")
    rows = (
        (
            check["name"],
            f"{check['value']:.4g}",
            _ends(check),
            check["asked"],
            "holds" if check["holds"] else "does not hold",
        )
        for check in entry["checks"]
    )
    show.table(("check", "value", "interval", "asked", ""), rows, right=("value",))
    for table in entry["tables"]:
        show.say(f"\n{table['title']}:")
        show.table(table["columns"], ((name, *map(_number, cells)) for name, cells in table["rows"].items()))
    held = "The claim holds here" if entry["holds"] else "The claim does not hold here as a whole"
    show.say(f"\n{held}: seeds {', '.join(map(str, entry['seeds']))}, {show.duration(entry['seconds'])} on {entry['machine']}.")
    for left in entry["left_out"]:
        show.say(f"left out: {left}")


def _number(cell: dict[str, Any]) -> str:
    return f"{cell['value']:.3g} {_ends(cell)}".rstrip()


def _ends(estimate: dict[str, Any]) -> str:
    """The interval of a check or of a number."""
    return f"[{estimate['interval'][0]:.4g}, {estimate['interval'][1]:.4g}]" if estimate["interval"] else ""
