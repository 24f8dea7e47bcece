"""What a law that was read off a recording is worth: free runs and forecasts against what it did not learn from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from retrodict.errors import DataError, NotIdentifiableError
from retrodict.metrics import Estimate, decorrelation_steps, interval, obstacles, valid_time
from retrodict.metrics.free_runs import BINS, SHORT, SHORT_BINS, attractor_distance, free_run, judged
from retrodict.metrics.reconstruction import MOST_BINNED
from retrodict.reports import html, pictures
from retrodict.reports.html import Html
from retrodict.roles import Law, Report
from retrodict.systems import System
from retrodict.systems.series import channel_names
from retrodict.trajectories import Recordings
from retrodict.trajectories.features import STATE

STARTS = 50
"""Moments of the held-out series from which the law is asked to go on."""

LEAST = 100
"""Held-out steps that a law is judged on, at least."""

STRETCHES = 4
"""Stretches of starts, independent of each other, that an interval over starts takes at least."""

COMPARED = 20
"""Stretches of what was learned from, spread evenly, that are held against the held-out part as free runs are."""

FARTHER = 1.0
"""Nats of D_stsp by which free runs may be farther from the held-out part than such stretches are."""


@dataclass(frozen=True)
class Judgement:
    """A law, fitted under several seeds, against a held-out series.

    Attributes:
        names: of the channels.
        dt: time of a step.
        steps: length of the held-out series.
        obstacles: what stands against reading a law off this recording at all.
        divergence: D_stsp of the free runs; `spectrum`: their D_H; `exponent`: largest Lyapunov exponent per unit of time.
        usual: the largest D_stsp of stretches of what was learned from: as far as the recording is from itself.
        alike: whether free runs visit the places of the held-out part about as such stretches do: on average over all seeds, of
            which one that shares no place with it is infinitely far.
        valid: time for which forecasts hold (error below 0.4 standard deviations), one value per independent stretch of starts:
            those from moments close to each other fail together. Below `STRETCHES` of them there is no interval (NaN).
        still: the same if nothing moved.
        gain: how much longer forecasts hold than if nothing moved, stretch by stretch.
        bounded: share of the seeds whose free run stays finite and within ten standard deviations of the data.
        best: position of the seed with the smallest D_stsp.
    """

    names: tuple[str, ...]
    dt: float
    steps: int
    obstacles: tuple[str, ...]
    divergence: Estimate | None
    spectrum: Estimate | None
    exponent: Estimate | None
    usual: float
    alike: bool
    valid: Estimate
    still: Estimate
    gain: Estimate
    bounded: float
    best: int

    @property
    def foresees(self) -> bool:
        """Whether every free run stays near the data and forecasts hold for longer than those of standing still, beyond chance:
        never where there is no interval.
        """
        return self.bounded == 1 and self.gain.low > 0

    @property
    def trusted(self) -> bool:
        """Whether it foresees what comes next, and moves alike when left alone."""
        return self.foresees and self.alike

    @property
    def verdict(self) -> str:
        """One sentence."""
        found = f"forecasts hold for {self.valid.value:.3g} [{_ends(self.valid)}]"
        found += f" units of time, {self.still.value:.3g} if nothing moved"
        if self.trusted:
            return f"A law was found: {found}, and free runs go where the recording goes."
        if self.foresees:
            far = f"D_stsp {self.divergence.value:.3g}" if self.divergence else "no D_stsp"
            return (
                f"A law for forecasts only: {found}, but left alone it goes elsewhere than the recording ({far}; stretches of "
                f"the recording itself: {self.usual:.3g} at most)."
            )
        away = "" if self.bounded == 1 else f"; {1 - self.bounded:.0%} of the seeds run away when left alone"
        why = " ".join(self.obstacles) or "Nothing in the recording says why: train longer, or try another system."
        return f"Not identified from this recording: {found}{away}. {why}"

    def to_json(self) -> dict[str, Any]:
        shown = ("divergence", "spectrum", "exponent", "valid", "still", "gain")
        found: dict[str, Estimate | None] = {name: getattr(self, name) for name in shown}
        estimates = {n: e and {"value": e.value, "interval": [e.low, e.high], "n": e.n} for n, e in found.items()}
        said = {"trusted": self.trusted, "verdict": self.verdict, "obstacles": list(self.obstacles)}
        return {**said, "steps": self.steps, "bounded": self.bounded, "usual": self.usual, "alike": self.alike, **estimates}


def judge(laws: Sequence[Law], learning: Recordings, held: Recordings, names: Sequence[str]) -> Judgement:
    """Hold laws (one system under several seeds), fitted on `learning`, against recordings that none of them learned from.

    Raises DataError where the longest held-out run is too short to be compared with, or a channel stands still in it.
    """
    series = judged_by(held, names)
    method: Any = "bins" if series.shape[1] <= MOST_BINNED else "gmm"
    short = len(series) < SHORT
    bins, sigma = (SHORT_BINS, 1.0) if short else (BINS, 20.0)
    scores = [judged(law, series, method=method, bins=bins, sigma=sigma) for law in laws]
    runs = [free_run(law, series) for law in laws]
    near = [bool((np.abs(run - series.mean(0)) <= 10 * series.std(0)).all()) for run in runs]  # False where not finite
    slow = decorrelation_steps(series)
    # Known before any forecast is, and so short that stretches enough lie apart even where all forecasts hold to their end:
    # were it to depend on how long they hold, only laws that do badly would get an interval.
    horizon = int(np.clip((len(series) - STRETCHES * slow) // (STRETCHES + 1), 20, 20 * slow))
    at = np.linspace(0, len(series) - horizon - 1, STARTS).astype(int)
    truth = np.stack([series[t + 1 : t + 1 + horizon] for t in at])
    dt = laws[0].dt

    def holds(foreseen: np.ndarray) -> np.ndarray:
        return valid_time(foreseen, truth, scale=series.std(0), unit=dt)

    times = dt * torch.arange(1, horizon + 1, dtype=torch.float64)
    ahead = [law.simulate(torch.from_numpy(series[at]), times).cpu().numpy() for law in laws]
    per_start = np.mean([holds(np.nan_to_num(path, nan=np.inf)) for path in ahead], 0)
    at_rest = holds(np.repeat(series[at][:, None], horizon, 1))
    independent = int(np.clip((len(series) - horizon) // (slow + round(per_start.mean() / dt)), 1, STARTS))
    against = obstacles([np.asarray(episode[STATE], np.float64) for part in (learning, held) for episode in part], names)
    if independent < STRETCHES:
        against += (
            f"it is too short to judge a law by: {len(series):,} held-out steps hold too few independent stretches of forecasts "
            f"({independent}, at least {STRETCHES} are needed for an interval); record longer.",
        )
    order = [s["D_stsp"] if s["D_stsp"] is not None else np.inf for s in scores]
    usual = _usual(learning, series)
    return Judgement(
        tuple(names),
        dt,
        len(series),
        against,
        divergence=_over_seeds([s["D_stsp"] for s in scores]),
        spectrum=_over_seeds([s["D_H"] for s in scores]),
        exponent=_over_seeds([s["exponent"] for s in scores]),
        usual=usual,
        alike=bool(np.mean(order) <= usual + FARTHER),
        valid=_over_starts(per_start, independent),
        still=_over_starts(at_rest, independent),
        gain=_over_starts(per_start - at_rest, independent),
        bounded=float(np.mean(near)),
        best=int(np.argmin(order)),
    )


def page(law: Law, judgement: Judgement, title: str) -> Html:
    """The page about a law: the verdict, the numbers, the pictures, and what it says."""
    rows = [
        (what, f"{e.value:.4g}", f"[{_ends(e, 4)}]", str(e.n))
        for what, e in (
            (f"distance of the attractors, D_stsp (0 is best, {judgement.usual:.3g} usual)", judgement.divergence),
            ("distance of the power spectra, D_H (0 to 1)", judgement.spectrum),
            ("largest Lyapunov exponent, per unit of time", judgement.exponent),
            ("valid time of a forecast", judgement.valid),
            ("valid time if nothing moved", judgement.still),
        )
        if e is not None
    ]
    parts = [html.note(judgement.verdict, "good" if judgement.trusted else "bad")]
    parts += [html.note(sentence) for sentence in judgement.obstacles]
    parts.append(
        html.section(
            "How far to trust it",
            html.table(["what", "mean", "95 % interval", "values"], rows, f"Against {judgement.steps:,} held-out steps."),
        )
    )
    if hasattr(law, "plot"):
        parts.append(html.section("The law beside the data", html.picture(law.plot())))
    if hasattr(law, "evidence"):
        parts.append(html.section("What it was chosen from, and how sure each term is", *_evidence(law.evidence())))
    if hasattr(law, "lyapunov"):
        exponents = law.lyapunov().per_time
        line = {"this law": (np.arange(1, len(exponents) + 1), exponents)}
        parts.append(html.section("Lyapunov spectrum", html.picture(pictures.lines(line, "exponent", "per unit of time"))))
    if hasattr(law, "equations"):
        parts.append(html.section("What it says", html.command("\n".join(law.equations()))))
    return html.page(title, judgement.verdict, *parts)


def _evidence(report: Report) -> list[Html]:
    """What a law says of how it was found: sentences, pictures, and everything that was tried."""
    columns = [
        [f"{entry:.4g}" if isinstance(entry, float) else str(entry) for entry in c.tolist()] for c in report.table.values()
    ]
    return [
        html.bullets(report.findings),
        html.picture(report.plot()),
        html.table(list(report.table), list(zip(*columns, strict=True)), "Everything that was tried."),
    ]


def divided(recordings: Recordings, share: float) -> tuple[Recordings, Recordings]:
    """What to learn from and what to judge by: episodes where there are several, else the end of the only one.

    Raises DataError where there is nothing to divide.
    """
    if len(recordings) > 1:
        return recordings.split(share)
    if not len(recordings):
        raise DataError("the recordings are empty; at least one episode is needed.")
    cut = round((1 - share) * recordings[0].length)
    steps = np.arange(recordings[0].length)
    return recordings.of([recordings[0].at(steps[:cut])]), recordings.of([recordings[0].at(steps[cut:])])


def judged_by(held: Recordings, names: Sequence[str]) -> np.ndarray:
    """The longest held-out run (T, N).

    Raises NotIdentifiableError where it is too short to be compared with, or a channel stands still in it.
    """
    series = max((np.asarray(episode[STATE], np.float64) for episode in held), key=len)
    if len(series) < LEAST:
        raise NotIdentifiableError(
            f"no law is identifiable from this recording: it is too short; a law is judged on {LEAST} held-out steps or more in "
            "one run (the end of the only episode, or an episode of several), and the longest run held out here has "
            f"{len(series)}: record longer runs. More short episodes do not help; those that follow each other without a break "
            "can be given as one (of a table, leave out the column that numbers them: --leave-out)."
        )
    still = np.ptp(series, axis=0) == 0
    if still.any():
        named = ", ".join(repr(name) for name in np.asarray(names, object)[still])
        raise NotIdentifiableError(
            f"no law is identifiable from this recording: {named} stands still in the {len(series):,} steps that are held out to "
            "judge by; leave it out (a column: --leave-out), or record motion that goes on."
        )
    return series


def channels(recordings: Recordings) -> tuple[str, ...]:
    """Names of the channels of `observation.state`.

    Raises DataError where there are none.
    """
    if STATE not in recordings.features:
        raise DataError(f"a law is read off {STATE!r}; these recordings have {', '.join(recordings.features) or 'no features'}.")
    return channel_names(recordings.features[STATE])


def require_law(kind: type[System]) -> None:
    """Raises DataError naming the laws of observations that there are, where a system is none."""
    from retrodict.systems import catalogue

    laws = {slug: system for slug, system in catalogue().items() if issubclass(system, Law) and system.of_observations}
    if kind.card.slug not in laws:
        what = "a law of something else than observations" if issubclass(kind, Law) else "no law"
        raise DataError(f"{kind.card.slug} recovers {what}; these recover laws of observations: {', '.join(laws)}.")


def require_observations(law: Law) -> None:
    """Raises DataError where a law, as it is set, moves something else than single observations."""
    if not law.of_observations:
        raise DataError(
            "a law is judged by what it makes of single observations, and this one moves several side by side (delays): "
            "leave out the delays, or judge it by `analyse`."
        )


def _usual(learning: Recordings, series: np.ndarray) -> float:
    """The largest D_stsp from a series (T, N) of stretches as long, or shorter where none is; 0 where all lie apart from it."""
    longest = max((np.asarray(episode[STATE], np.float64) for episode in learning), key=len)
    starts = np.unique(np.linspace(0, max(len(longest) - len(series), 0), COMPARED).astype(int))
    found = [attractor_distance(series, longest[start : start + len(series)]) for start in starts]
    return max((value for value in found if math.isfinite(value)), default=0.0)


def _over_seeds(values: Sequence[float | None]) -> Estimate | None:
    finite = [value for value in values if value is not None]
    return interval(finite) if finite else None


def _over_starts(values: np.ndarray, independent: int) -> Estimate:
    """The mean over starts of one series, by the means of its `independent` stretches; below `STRETCHES` without an interval."""
    if independent < STRETCHES:
        return Estimate(float(values.mean()), math.nan, math.nan, independent)
    return interval([stretch.mean() for stretch in np.array_split(values, independent)])


def _ends(estimate: Estimate, digits: int = 3) -> str:
    """The ends of its interval."""
    return "no interval" if math.isnan(estimate.low) else f"{estimate.low:.{digits}g}, {estimate.high:.{digits}g}"
