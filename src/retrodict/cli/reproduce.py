"""`retrodict reproduce`: does the published claim hold here?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from retrodict.cli import show
from retrodict.cli.arguments import parse

if TYPE_CHECKING:
    from retrodict.claims import Standing


def run(argv: Sequence[str]) -> None:
    parse(reproduce, argv, "reproduce")


def reproduce(
    system: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[SYSTEM]", help_behavior_hint="")] = None,
    /,
    quick: bool = False,
    seeds: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N ...", help_behavior_hint="(default: the experiment's own)")] = (),
    arms: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ARM ...", help_behavior_hint="(default: all)")] = (),
    extend: bool = False,
    jobs: int = 1,
    work: Path = Path("runs/claims"),
    results: Path = Path("results"),
    json: bool = False,
) -> None:
    """Run the experiment that tests the published claim of a system, and judge it by thresholds that were set beforehand.

    Every arm writes its numbers when it ends, so a run that was stopped carries on with the same command. The full run writes
    results/SYSTEM.json, whether the claim holds or not; it may take hours, and says how many. To run the seeds of a long one on
    several machines or days, add them to that file by --extend.

    Example: retrodict reproduce vpt --quick

    Args:
        system: which one; without it, list those that have an experiment, what it found here and how long it took.
        quick: a smaller run of the same experiment, in minutes, that is never reported.
        seeds: seeds to run.
        arms: run these arms only, and those they need; the others are judged where they were run before.
        extend: keep the arms and seeds that the results file reports, wherever they were run, run what is missing, and write
            the file after every arm.
        jobs: processes among which arms and seeds are shared out.
        work: folder for what the arms write; says where arms that are done were measured by other code than is here.
        results: folder for the results file.
        json: print JSON.
    """
    from retrodict import claims

    if system is None:
        known = [_known(slug, results) for slug in claims.claims()]
        if json:
            show.as_json(known)
        else:
            rows = ((k["system"], k["found"], show.duration(k["seconds"]) if k["seconds"] else "") for k in known)
            show.table(("system", "found here", "took"), rows)
        return
    chosen: dict[str, Any] = {"seeds": seeds or None, "arms": arms or None, "quick": quick, "extend": extend, "jobs": jobs}
    if json:
        show.as_json(claims.reproduce(system, work=work, results=results, **chosen))
        return
    with _Watch(system) as watch:
        entry = claims.reproduce(system, work=work, results=results, report=watch.see, **chosen)
    _print(entry)


def _known(slug: str, results: Path) -> dict[str, Any]:
    """What an experiment found when it was last reported, and the seconds of computing that it took."""
    from retrodict.files import read_json
    from retrodict.reports.catalogue import reproduced

    file = results / f"{slug}.json"
    seconds = read_json(file)["seconds"] if file.exists() else None
    return {"system": slug, "found": reproduced(file), "seconds": seconds}


class _Watch:
    """A bar of the arms that are done where there is a terminal, and a line for each."""

    def __init__(self, system: str) -> None:
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task(system, total=None, left="")

    def __enter__(self) -> _Watch:
        self._bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._bar.stop()

    def see(self, standing: Standing) -> None:
        left = f"about {show.duration(standing.left)} to go" if standing.left else ""
        self._bar.update(self._task, completed=standing.done, total=standing.total, left=left)
        count = f"{standing.done} of {standing.total} arms over seeds are done" + (f", {left}" if left else "")
        if standing.ended is None:
            show.say(f"{count}.")
            return
        arm, seed = standing.ended
        show.say(f"{arm}, seed {seed}: {show.duration(standing.seconds)}; {count}")
        for check in standing.checks:
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
