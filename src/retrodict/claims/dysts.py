"""The claim of the chaos benchmark: error grows with chaos, over systems and methods; and what else its systems serve."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from retrodict.claims.baselines import forecasters
from retrodict.claims.baselines.polynomial_laws import polynomial_law, same_law
from retrodict.claims.baselines.segments import SegmentTraining, steps_saved
from retrodict.claims.baselines.series_features import BUNDLED, accuracy, bundled, encoders, features, surrogates
from retrodict.claims.experiment import Check, Experiment, Measured
from retrodict.errors import DataError, NotIdentifiableError
from retrodict.files import read_json
from retrodict.metrics import interval, rank_correlation
from retrodict.systems.laws.chaos_benchmark import MOTION, ChaosBenchmark
from retrodict.systems.laws.sparse_identification import SINDy
from retrodict.trajectories import from_arrays
from retrodict.trajectories.features import STATE
from retrodict.worlds.chaos import ode_world, ode_worlds

SYSTEMS, QUICK_SYSTEMS, PARTS = 40, 8, 4
PER_PERIOD, STEPS = 60, 1500
LITERATURE = {  # Sprott, Chaos and Time-Series Analysis (2003), appendix A, at the parameters that stand there
    "dysts/Lorenz": ({"beta": 8 / 3}, 0.9056),
    "dysts/Rossler": ({"a": 0.2, "b": 0.2, "c": 5.7}, 0.0714),
    "dysts/Halvorsen": ({"a": 1.27, "b": 4.0}, 0.7899),
}
METHODS: Mapping[str, Callable[[int], forecasters.Forecaster]] = {
    "persistence": lambda seed: forecasters.Persistence(),
    "climatology": lambda seed: forecasters.Climatology(),
    "linear": lambda seed: forecasters.LinearAutoregression(),
    "nvar": lambda seed: forecasters.Nvar(),
    "reservoir": lambda seed: forecasters.ReservoirForecaster(seed=seed),
}
SAMPLED = ("Lorenz", "Rossler", "Halvorsen", "HindmarshRose", "Thomas")


def chosen(quick: bool) -> list[str]:
    """The systems: three coordinates, autonomous, bounded; drawn once for all seeds."""
    names = ode_worlds(dysts=True, dimension=3, autonomous=True, bounded=True)
    drawn = [names[i] for i in np.random.default_rng(0).permutation(len(names))]
    return drawn[: QUICK_SYSTEMS if quick else SYSTEMS]


def generate(seed: int, folder: Path, quick: bool, *, part: int) -> Measured:
    """Trajectories and largest exponents of a part of the systems; a seed is a stretch of the attractor."""
    rows: dict[str, dict[str, Any]] = {}
    series: dict[str, np.ndarray] = {}
    for name in chosen(quick)[part::PARTS]:
        world = ode_world(name)
        try:
            start = world.starts(1, seed)[0]
            recordings = world.record(STEPS, world.period / PER_PERIOD, start, precision="float64")
        except DataError as error:
            rows[name] = {"failed": str(error)}
            continue
        spectrum = world.lyapunov(orbits=4 if quick else 8, periods=50 if quick else 200, seed=seed)
        rows[name] = {"lyapunov": spectrum.largest, "spread": float(spectrum.spread[0] / spectrum.dt), "period": world.period}
        series[name] = recordings[0][STATE]
    np.savez(folder / f"systems-{part}.npz", **series)  # type: ignore[arg-type]
    return {"systems": rows}


def generated(folder: Path) -> dict[str, dict[str, Any]]:
    """What `generate` left: name -> period, lyapunov, series (STEPS, 3)."""
    found: dict[str, dict[str, Any]] = {}
    for part in range(PARTS):
        rows = read_json(folder / f"generate-{part}.json")["systems"]
        with np.load(folder / f"systems-{part}.npz") as series:
            found |= {name: {**row, "series": series[name]} for name, row in rows.items() if "failed" not in row}
    return found


def literature(seed: int, folder: Path, quick: bool) -> Measured:
    """Recomputed exponents of systems whose exponents are known."""
    size = {"orbits": 4, "periods": 200} if quick else {"orbits": 16, "periods": 600}
    return {name: ode_world(name, **given).lyapunov(seed=seed, **size).largest for name, (given, _) in LITERATURE.items()}


def forecasts(seed: int, folder: Path, quick: bool, *, method: str) -> Measured:
    """The scores of a method on every system."""
    systems = generated(folder)
    known = {
        name: {"period": PER_PERIOD, "lyapunov": row["lyapunov"] * row["period"] / PER_PERIOD} for name, row in systems.items()
    }
    recordings = from_arrays(
        [{STATE: row["series"]} for row in systems.values()],
        fps=PER_PERIOD,
        domains=list(systems),
        structures={MOTION: known},
    )
    report = ChaosBenchmark().fit(recordings).analyse(METHODS[method](seed))
    return {"names": list(systems), **{name: curve.tolist() for name, curve in report.table.items()}}


def discovery(seed: int, folder: Path, quick: bool) -> Measured:
    """Whether the equations of each quadratic system are found, from clean states and with 1 % noise; a refusal finds none."""
    found = {}
    for name, row in generated(folder).items():
        x, rng = row["series"], np.random.default_rng((seed, 1))
        corners = rng.uniform(x.min(0), x.max(0), (200, x.shape[1]))
        true = polynomial_law(ode_world(name).derivative, corners)
        if true is None:
            continue
        exact: dict[str, Any] = {}
        for label, noise in (("clean", 0.0), ("noisy", 0.01)):
            seen = x + noise * x.std(0) * rng.normal(size=x.shape)
            try:
                law = SINDy(seed=seed).fit(from_arrays([{STATE: seen}], fps=PER_PERIOD / row["period"])).coefficients
            except NotIdentifiableError as error:
                law, exact[f"{label} refused"] = np.zeros_like(true), str(error)
            exact[label] = same_law(law, true)
            exact[f"{label} terms"] = [int(np.count_nonzero(law)), int(np.count_nonzero(true))]
        found[name] = exact
    return {"systems": found}


def importance(seed: int, folder: Path, quick: bool, *, name: str) -> Measured:
    """Losses while segments are added near the hardest ones, and at random."""
    training = SegmentTraining(epochs=8) if quick else SegmentTraining()
    world = ode_world(f"dysts/{name}")
    curves = [training.run(world, important, seed) for important in (True, False)]
    return {"ratio": steps_saved(*curves), "important": curves[0].tolist(), "random": curves[1].tolist()}


def transfer(seed: int, folder: Path, quick: bool) -> Measured:
    """Accuracies with features of an encoder that learned from chaotic series, as it was drawn, and of the raw series."""
    paths = [row["series"][:, 0] for row in generated(folder).values()]
    scores = {}
    for name in BUNDLED:
        train, labels, test, truth = bundled(name)
        power = (np.abs(np.fft.rfft(train, axis=1)) ** 2).mean(0)
        target = train.shape[1] / (int(power[1:].argmax()) + 1)
        pieces = surrogates(paths, PER_PERIOD, target, train.shape[1], 2000, seed)
        drawn, learned = encoders(pieces, target, seed)
        scores[name] = {
            "untrained": accuracy(features(drawn, train), labels, features(drawn, test), truth),
            "pretrained": accuracy(features(learned, train), labels, features(learned, test), truth),
            "raw": accuracy(train, labels, test, truth),
        }
    return {"sets": scores}


class Dysts(Experiment):
    slug = "dysts"
    claim = (
        "forecasting error grows with the degree of chaos, across systems and methods; the systems serve discovery and transfer"
    )
    seeds: Sequence[int] = (2, 3, 4)  # 0 and 1 served to choose the settings of discovery and transfer

    @property
    def needs(self) -> Mapping[str, Sequence[str]]:  # type: ignore[override]
        parts = [f"generate-{part}" for part in range(PARTS)]
        return dict.fromkeys((*(f"forecast-{method}" for method in METHODS), "discovery", "transfer"), parts)

    @property
    def left_out(self) -> Sequence[str]:  # type: ignore[override]
        said = [
            "shallow PLRNN with GTF on 10 systems: its page has its own experiment, and no check here asks for it",
            "transfer (f) with 5 seeds: 3, as for the rest",
        ]
        if find_spec("sktime") is None:
            said.append('transfer (f): the bundled sets come with sktime, which is not installed: pip install "retrodict[chaos]"')
        return said

    def arms(self, quick: bool) -> Mapping[str, Callable[[int, Path, bool], Measured]]:
        arms: dict[str, Callable[[int, Path, bool], Measured]] = {
            f"generate-{part}": partial(generate, part=part) for part in range(PARTS)
        }
        arms["literature"] = literature
        arms |= {f"forecast-{method}": partial(forecasts, method=method) for method in METHODS}
        arms["discovery"] = discovery
        if quick:
            return arms
        arms |= {f"importance-{name}": partial(importance, name=name) for name in SAMPLED}
        if find_spec("sktime") is not None:
            arms["transfer"] = transfer
        return arms

    def checks(self, measured: Mapping[str, Mapping[int, Measured]], quick: bool) -> Sequence[Check]:
        done = measured.keys()
        checks: list[Check] = []
        if not quick and all(f"generate-{part}" in done for part in range(PARTS)):
            checks += _generation(measured)
        if not quick and "literature" in done:
            checks.append(_literature(measured["literature"]))
        methods = {name: _pooled(measured[f"forecast-{name}"]) for name in METHODS if f"forecast-{name}" in done}
        if {"nvar", "persistence"} <= methods.keys():
            checks += _against_persistence(methods)
        if not quick and len(methods) == len(METHODS):
            checks += _correlations(methods)
        if "discovery" in done:
            checks += _discovery(measured["discovery"], quick)
        if all(f"importance-{name}" in done for name in SAMPLED):
            ratios = [m["ratio"] for name in SAMPLED for m in measured[f"importance-{name}"].values()]
            median = float(np.median(ratios))
            checks.append(
                Check("importance sampling: share of the steps to the random loss", median, None, "<= 0.8", median <= 0.8)
            )
        if "transfer" in done:
            checks.append(_transfer(measured["transfer"]))
        elif not quick and find_spec("sktime") is None:
            checks.append(Check("sets on which pre-training on chaos helps (not run: no sktime)", 0.0, None, ">= 2 of 3", False))
        return checks


def _generation(measured: Mapping[str, Mapping[int, Measured]]) -> list[Check]:
    made, positive = [], []
    for seed in measured["generate-0"]:
        parts = [measured[f"generate-{part}"].get(seed) for part in range(PARTS)]
        if all(parts):
            exponents = [row["lyapunov"] for part in parts if part for row in part["systems"].values() if "failed" not in row]
            made.append(len(exponents))
            positive.append(float(np.mean(np.array(exponents) > 0)))
    return [
        Check("systems generated (fewest over seeds)", min(made), None, ">= 36 of 40", min(made) >= 36),
        Check("share with a positive exponent", float(np.mean(positive)), None, ">= 0.9", bool(np.mean(positive) >= 0.9)),
    ]


def _literature(arm: Mapping[int, Measured]) -> Check:
    errors = [abs(np.mean([m[name] for m in arm.values()]) / true - 1) for name, (_, true) in LITERATURE.items()]
    worst = float(max(errors))
    return Check("recomputed exponents against literature, worst of three", worst, None, "<= 0.15", worst <= 0.15)


def _pooled(arm: Mapping[int, Measured]) -> dict[str, np.ndarray]:
    """Scores per system, medians over seeds; a system that failed in some seed is judged by the others."""
    pooled: dict[str, dict[str, list[float]]] = {}
    for m in arm.values():
        for i, name in enumerate(m["names"]):
            for score in ("valid periods", "smape", "chaos"):
                pooled.setdefault(score, {}).setdefault(name, []).append(m[score][i])
    return {score: np.array([np.median(values) for _, values in sorted(rows.items())]) for score, rows in pooled.items()}


def _against_persistence(methods: Mapping[str, Mapping[str, np.ndarray]]) -> list[Check]:
    ours, naive = methods["nvar"], methods["persistence"]
    wins = interval((ours["valid periods"] > naive["valid periods"]).astype(float), "wilson")
    ratio = float(np.median(ours["smape"]) / np.median(naive["smape"]))
    return [
        Check(
            "NVAR sees farther than persistence, share of systems",
            wins.value,
            (wins.low, wins.high),
            ">= 0.85",
            wins.value >= 0.85,
        ),
        Check("NVAR's half-period sMAPE over persistence's (medians)", ratio, None, "<= 0.2", ratio <= 0.2),
    ]


def _correlations(methods: Mapping[str, Mapping[str, np.ndarray]]) -> list[Check]:
    """Spearman of valid time and of error with exponent times period, for NVAR and for the other learner that fits best."""
    found = {}
    for name in ("nvar", "linear", "reservoir"):
        rows = methods[name]
        time = rank_correlation(rows["valid periods"], rows["chaos"], level=0.9)
        error = rank_correlation(rows["smape"], rows["chaos"], level=0.9)
        found[name] = (time, error, time.high < 0 or error.low > 0)
    other = max(("reservoir", "linear"), key=lambda n: (found[n][0].value <= -0.25 and found[n][1].value >= 0.2, found[n][2]))
    checks = []
    for name in ("nvar", other):
        time, error, apart = found[name]
        label = f"{name}, {len(methods[name]['chaos'])} systems"
        checks += [
            Check(
                f"Spearman of valid time and chaos ({label})", time.value, (time.low, time.high), "<= -0.25", time.value <= -0.25
            ),
            Check(f"Spearman of sMAPE and chaos ({label})", error.value, (error.low, error.high), ">= 0.2", error.value >= 0.2),
            Check(f"one of the two intervals excludes 0 ({name})", float(apart), None, "1", apart),
        ]
    return checks


def _discovery(arm: Mapping[int, Measured], quick: bool) -> list[Check]:
    rows = [row for m in arm.values() for row in m["systems"].values()]
    clean, noisy = (float(np.mean([row[label] for row in rows])) for label in ("clean", "noisy"))
    found = Check("quadratic laws found exactly, clean", clean, None, ">= 0.6", clean >= 0.6)
    below = Check("laws found exactly at 1 % noise, below clean", noisy, None, f"< {clean:.3g}", noisy < clean)
    return [found] if quick else [found, below]


def _transfer(arm: Mapping[int, Measured]) -> Check:
    better = sum(
        np.mean([m["sets"][name]["pretrained"] for m in arm.values()])
        > np.mean([m["sets"][name]["untrained"] for m in arm.values()])
        for name in BUNDLED
    )
    return Check("sets on which pre-training on chaos helps", float(better), None, ">= 2 of 3", bool(better >= 2))


EXPERIMENT = Dysts()
