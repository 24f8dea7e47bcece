"""How an experiment is run: arms over seeds, resumable one by one, in one process or several, and the results file."""

from __future__ import annotations

import multiprocessing
import os
import platform
import shlex
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from retrodict._version import __version__
from retrodict.claims import provenance
from retrodict.claims.experiment import Check, Experiment, Measured, experiment
from retrodict.errors import DataError
from retrodict.files import read_json, write_json

PACKAGES = (
    *("torch", "numpy", "scipy", "numba", "scikit-learn", "gymnasium", "av"),
    *("vizdoom", "minigrid", "mujoco", "dm-control", "metaworld", "dysts", "sktime"),
)

#: An arm of one seed.
Cell = tuple[str, int]


@dataclass(frozen=True)
class Standing:
    """Where a run of an experiment stands: told when it begins and whenever an arm of a seed has ended.

    Attributes:
        done, total: arms over seeds that have their numbers, and those that will have.
        left: seconds that the others may take, as arms of that name took before, or arms at all; None before any has run.
        ended: the arm and seed that ended just now, None at the beginning.
        seconds: that it took.
        checks: those that can be judged so far.
    """

    done: int
    total: int
    left: float | None
    ended: Cell | None = None
    seconds: float = 0.0
    checks: Sequence[Check] = ()


def reproduce(
    slug: str,
    *,
    seeds: Sequence[int] | None = None,
    quick: bool = False,
    arms: Sequence[str] | None = None,
    extend: bool = False,
    jobs: int = 1,
    work: Path = Path("runs/claims"),
    results: Path = Path("results"),
    report: Callable[[Standing], None] | None = None,
) -> dict[str, Any]:
    """Run the experiment of a system and write `results/<slug>.json`; arms already done are not run again.

    Args:
        slug: the system.
        seeds: seeds to run; the experiment's own where not given.
        quick: the small run for tests; its result is returned and never written to `results`.
        arms: run only these arms and those they need (the rest is judged when it is there).
        extend: keep the arms and seeds that the results file reports, wherever they were run, run what is missing, and write
            the file after every arm.
        jobs: processes among which arms and seeds are shared out; with more than one, each computes in a single thread.
        work: folder for what the arms write; a second run with the same folder resumes, and warns where the code of retrodict
            has changed since an arm was measured.
        results: folder of the results files.
        report: called when it begins and after every arm.

    Returns the results entry. Raises DataError for an unknown slug or arm, and where the results file would lose what it reports.
    """
    trial = experiment(slug)
    seeds = tuple(trial.seeds[:1] if quick and seeds is None else seeds or trial.seeds)
    todo = trial.arms(quick)
    if unknown := set(arms or ()) - todo.keys():
        raise DataError(f"{slug} has no arm {', '.join(sorted(unknown))}; its arms are {', '.join(todo)}.")
    home = work / (f"{slug}-quick" if quick else slug)
    file = results / f"{slug}.json"
    before = read_json(file) if file.exists() and not quick else {}
    reported = _by_seed(before.get("measured", {}))
    measured = {arm: dict(reported[arm]) for arm in todo if arm in reported} if extend else {}
    cells = [(arm, seed) for seed in seeds for arm in todo]
    here = {cell for cell in cells if cell_path(home, *cell).exists()}
    _warn_of_other_code(home, here)
    for arm, seed in here:
        measured.setdefault(arm, {})[seed] = read_json(cell_path(home, arm, seed))
    wanted = todo if arms is None else with_needs(arms, trial.needs)
    known = {(arm, seed) for arm in todo for seed in reported.get(arm, {})}
    if lost := len(known - {(arm, seed) for arm, seed in cells if arm in wanted} - here) * (not extend):
        raise DataError(
            f"{file} reports {len(known)} arms over seeds, {lost} of which this run would not have: add to it by --extend, or "
            "write elsewhere by --results."
        )
    lacking = {(arm, seed) for arm, seed in cells if arm in wanted and seed not in measured.get(arm, {})}
    # An arm that was measured elsewhere has left its files there: it runs again where another one reads them.
    read = {(need, seed) for arm, seed in lacking for need in with_needs([arm], trial.needs)}
    due = {cell: None for cell in cells if cell in lacking or (cell in read and cell not in here)}
    taken = {arm: _mean_seconds(numbers.values()) for arm, numbers in reported.items()}
    total = sum(arm in wanted for arm, _ in cells)
    tell = report or (lambda standing: None)
    ran = bool(due)
    tell(Standing(total - len(due), total, _left(due, measured, taken, jobs)))
    for arm, seed in _run(trial, tuple(due), home, quick, jobs):
        del due[arm, seed]
        numbers = read_json(cell_path(home, arm, seed))
        measured.setdefault(arm, {})[seed] = numbers
        if extend and not quick:  # without, a run that is stopped would leave less than the file had
            write_json(file, _entry(trial, measured, quick))
        left = _left(due, measured, taken, jobs)
        tell(Standing(total - len(due), total, left, (arm, seed), numbers["seconds"], trial.checks(measured, quick)))
    entry = _entry(trial, measured, quick)
    if extend and not ran and before:  # judged anew, where nothing was measured
        entry |= {name: before[name] for name in ("versions", "machine")}
    if not quick:
        write_json(file, entry)
    return entry


def _warn_of_other_code(home: Path, cells: Iterable[Cell]) -> None:
    """Say where arms that are done already were measured by code that has changed since."""
    if changed := provenance.changed(cell_path(home, *cell) for cell in cells):
        names = sorted(changed, key=lambda name: -changed[name])
        more = f" and {len(names) - 3} others" if len(names) > 3 else ""
        warnings.warn(
            f"{home} holds what was measured before {', '.join(names[:3])}{more} changed, and it is not measured again; where "
            "that matters, remove its files (seed-N/ARM.json) or name another folder by --work.",
            stacklevel=3,
        )


def _entry(trial: Experiment, measured: Mapping[str, Mapping[int, Measured]], quick: bool) -> dict[str, Any]:
    """What is reported of the arms and seeds that were measured."""
    arms = tuple(trial.arms(quick))
    measured = {arm: dict(sorted(measured[arm].items())) for arm in arms if arm in measured}
    seeds = sorted({seed for numbers in measured.values() for seed in numbers})
    checks = trial.checks(measured, quick)
    missing = [f"{arm} (seeds {seeds})" for arm in arms if arm not in measured]
    unasked = [] if quick else [seed for seed in trial.seeds if seed not in seeds]
    partly = [f"{arm} (seeds {[s for s in seeds if s not in done]})" for arm, done in measured.items() if len(done) < len(seeds)]
    return {
        "slug": trial.slug,
        "claim": trial.claim,
        "holds": bool(checks) and all(check.holds for check in checks) and not missing,
        "checks": [asdict(check) for check in checks],
        "tables": [asdict(table) for table in trial.tables(measured)],
        "measured": measured,
        "seeds": seeds,
        "seconds": round(sum(numbers["seconds"] for arm in measured.values() for numbers in arm.values())),
        "command": _command(trial, seeds, tuple(measured) if missing else (), quick),
        "versions": _versions(),
        "machine": _machine(),
        "left_out": [*trial.left_out, *([f"seeds {unasked} of this experiment"] if unasked else []), *missing, *partly],
    }


def _by_seed(measured: Mapping[str, Mapping[str, Measured]]) -> dict[str, dict[int, Measured]]:
    """Arm -> seed -> numbers, from a results file, whose keys are texts."""
    return {arm: {int(seed): numbers for seed, numbers in cells.items()} for arm, cells in measured.items()}


def _left(
    due: Iterable[Cell], measured: Mapping[str, Mapping[int, Measured]], taken: Mapping[str, float], jobs: int
) -> float | None:
    """Seconds that arms may take: as the same ones took with other seeds, or when they were last reported, or as others took."""
    known = {**taken, **{arm: _mean_seconds(cells.values()) for arm, cells in measured.items()}}
    if not known:
        return None
    usual = sum(known.values()) / len(known)
    return sum(known.get(arm, usual) for arm, _ in due) / max(jobs, 1)


def _mean_seconds(cells: Iterable[Measured]) -> float:
    seconds = [float(numbers["seconds"]) for numbers in cells]
    return sum(seconds) / len(seconds)


def _command(trial: Experiment, seeds: Sequence[int], arms: Sequence[str], quick: bool) -> str:
    """What to type for the same numbers; `arms` where some were not run."""
    words = ["retrodict", "reproduce", trial.slug]
    words += ["--quick"] if quick else []
    words += ["--seeds", *map(str, seeds)] if not quick and tuple(seeds) != tuple(trial.seeds) else []
    return shlex.join([*words, *(["--arms", *arms] if arms else [])])


def with_needs(arms: Iterable[str], needs: Mapping[str, Sequence[str]]) -> set[str]:
    """Arms, those they need, those that these need, and so on."""
    found, waiting = set[str](), list(arms)
    while waiting:
        arm = waiting.pop()
        if arm not in found:
            found.add(arm)
            waiting += needs.get(arm, ())
    return found


def cell_path(home: Path, arm: str, seed: int) -> Path:
    """Where an arm of a seed writes its numbers; beside it lies what it leaves for others."""
    return home / f"seed-{seed}" / f"{arm}.json"


def run_cell(trial: Experiment, cell: Cell, home: Path, quick: bool) -> Cell:
    """Run one arm of one seed and write its numbers."""
    arm, seed = cell
    path = cell_path(home, arm, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    numbers = dict(trial.arms(quick)[arm](seed, path.parent, quick))
    provenance.note(path)
    write_json(path, {**numbers, "seconds": time.monotonic() - began})
    return cell


def _run(trial: Experiment, cells: Sequence[Cell], home: Path, quick: bool, jobs: int) -> Iterator[Cell]:
    """Run cells, each after those it needs, and yield each when its numbers are on disk."""
    if jobs <= 1:
        for cell in cells:
            yield run_cell(trial, cell, home, quick)
        return
    waiting, running = list(cells), dict[Future[Cell], Cell]()
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_one_thread) as pool:
        try:
            while waiting or running:
                unfinished = {*waiting, *running.values()}
                for cell in waiting.copy():
                    if not any((arm, cell[1]) in unfinished for arm in trial.needs.get(cell[0], ())):
                        waiting.remove(cell)
                        running[pool.submit(run_cell, trial, cell, home, quick)] = cell
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    del running[future]
                    yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _machine() -> str:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU only"
    return f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, {device}"


def _versions() -> dict[str, str]:
    found = {"retrodict": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
