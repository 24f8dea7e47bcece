"""The page about a labelling: how far its labels can be trusted, and what they look like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from retrodict.errors import DataError
from retrodict.labelling.summary import Labelled, Summary, meaning
from retrodict.metrics import Rightness, action_scores, expected_calibration_error
from retrodict.reports import html, pictures
from retrodict.reports.filmstrip import filmstrip
from retrodict.reports.html import Html
from retrodict.trajectories import Recordings
from retrodict.trajectories.features import ACTION, CONFIDENCE, INFERRED, SOURCE, cameras
from retrodict.trajectories.stores.lerobot.labels import FROM_EPISODE, FROM_FRAME

STRIP = 8
"""Frames of a filmstrip."""


@dataclass(frozen=True)
class Compared:
    """Inferred labels held against the truth, all steps one after the other.

    Attributes:
        inferred, true: flat actions (n, width).
        confidence: calibrated (n,).
        right: whether the whole action is right (n,).
        rule: what counts as right.
    """

    inferred: np.ndarray
    true: np.ndarray
    confidence: np.ndarray
    right: np.ndarray
    rule: Rightness


def compare(labelled: Recordings, truth: Recordings) -> Compared:
    """Every inferred label against the recorded action of the same step, in recordings that were not shown to the model.

    Episodes are found by their index in `truth`; labels at steps that could only be guessed (confidence 0) are left out.

    Raises DataError when no inferred label has a truth.
    """
    parts = [(a, t, c) for _, a, t, c in _matched(labelled, truth)]
    if not parts or labelled.actions is None:
        raise DataError("no inferred label has a recorded action to hold it against.")
    inferred, true, confidence = (np.concatenate([part[i] for part in parts]) for i in range(3))
    seen = confidence > 0
    inferred, true, confidence = inferred[seen], true[seen], confidence[seen]
    rule = Rightness.of(labelled.actions, true)
    return Compared(inferred, true, confidence, rule.joint(inferred, true), rule)


def page(labelled: Labelled, truth: Recordings | None = None) -> Html:
    """The page; with `truth` (the same episodes with the actions that were hidden) labels are also held against it."""
    summary = labelled.summary
    kept = f"{summary.kept:,} of {summary.steps:,} labels are kept"
    lead = f"{summary.labelled:,} episodes were given actions by {summary.model}; {kept}."
    return html.page("Labels", lead, *sections(labelled, truth))


def sections(labelled: Labelled, truth: Recordings | None = None) -> list[Html]:
    """The sections of `page`, to be put into a larger one."""
    summary = labelled.summary
    parts = [html.facts(_facts(summary)), *(html.note(warning, "bad") for warning in summary.warnings), _trust(summary)]
    if truth is not None:
        parts.append(_against_truth(compare(labelled, truth), labelled))
    strips = list(_strips(labelled, truth))
    if strips:
        parts.append(html.section("What the labels look like", *strips))
    return parts


def _facts(summary: Summary) -> dict[str, str]:
    facts = {"labels kept": f"{summary.kept / max(summary.steps, 1):.0%}"}
    if summary.calibration is not None:
        facts["of all labels right, on held-out episodes"] = f"{summary.calibration.accuracy:.1%}"
        facts["calibration error, after calibration"] = f"{summary.calibration.after['ece']:.3f}"
    if summary.expected_error is not None:
        facts["of the kept labels wrong, by their confidence"] = f"{summary.expected_error:.1%}"
    if summary.promise is not None:
        facts["of the kept labels wrong, promised at most"] = f"{summary.promise.max_error:.1%}"
    return facts


def _trust(summary: Summary) -> Html:
    content = [
        html.paragraph(f"A label counts as right when {summary.rule}." if summary.rule else "Nothing says how right they are.")
    ]
    content.append(html.paragraph(f"The numbers mean: {meaning(summary.actions)}."))
    if summary.promise is not None:
        content.append(
            html.note(f"The promise: {summary.promise}. It holds for recordings like those it was calibrated on.", "good")
        )
    if summary.calibration is not None:
        c = summary.calibration
        content.append(
            html.table(
                ["held-out episodes", "labels", "right", "calibration error before", "after", "Brier score before", "after"],
                [[str(c.episodes), f"{c.steps:,}", f"{c.accuracy:.1%}", f"{c.before['ece']:.3f}", f"{c.after['ece']:.3f}",
                  f"{c.before['brier']:.3f}", f"{c.after['brier']:.3f}"]],
                "Judged on labelled episodes that taught neither the model nor the calibration.",
            )
        )  # fmt: skip
        wrong = [(name, f"{error:.1%}") for name, error in summary.part_errors.items()]
        content.append(html.table(["part of the action", "wrong"], wrong, "Held out, among labels as sure as the kept ones."))
    spread = pictures.histogram(summary.histogram, "confidence of an inferred label")
    content.append(html.picture(spread, "How sure the inferred labels are, in steps."))
    return html.section("How far to trust them", *content)


def _against_truth(compared: Compared, labelled: Labelled) -> Html:
    scores = action_scores(compared.inferred, compared.true, compared.rule.space)
    rows = []
    for part, found in scores["parts"].items():
        for name, entry in found["names"].items():
            if "accuracy" in entry:
                r2 = entry.get("r2")
                rows.append(
                    (part, name, f"{entry['accuracy']:.1%}", f"{entry['majority']:.1%}", "" if r2 is None else f"{r2:.2f}")
                )
            else:
                rows.append(
                    (part, name, "" if entry["recall"] is None else f"{entry['recall']:.1%}", f"{entry['share']:.1%}", "")
                )
    rows.append(("whole action", "", f"{scores['joint']['accuracy']:.1%}", f"{scores['joint']['majority']:.1%}", ""))
    error = expected_calibration_error(compared.confidence, compared.right)
    return html.section(
        "Held against the truth",
        html.paragraph("The actions of these episodes were recorded and hidden; here they are compared with what was inferred."),
        html.table(
            ["part", "", "right", "best constant answer", "R²"],
            rows,
            f"{len(compared.right):,} labels. A choice's line says how often it was found, and its share of the steps.",
        ),
        html.picture(
            pictures.reliability({"inferred labels": (compared.confidence, compared.right)}),
            f"Confidence against the share that is right; the calibration error is {error:.3f}.",
        ),
    )


def _strips(labelled: Labelled, truth: Recordings | None) -> Iterator[Html]:
    """The surest and the least sure stretch of inferred labels, as frames of the first camera."""
    camera = next(iter(cameras(labelled.features)), None)
    if camera is None or labelled.actions is None:
        return
    found: list[tuple[float, int, int]] = []
    for i, episode in enumerate(labelled):
        if camera in episode and SOURCE in episode and (episode[SOURCE].ravel() == INFERRED).all() and episode.length >= STRIP:
            sure = np.convolve(episode[CONFIDENCE].ravel()[:-1], np.ones(STRIP) / STRIP, "valid")
            found += [(float(sure[at]), i, int(at)) for at in (sure.argmax(), sure.argmin())] if len(sure) else []
    if not found:
        return
    for title, (mean, i, at) in (("surest", max(found)), ("least sure", min(found))):
        episode, steps = labelled[i], np.arange(at, at + STRIP)
        inferred = episode[ACTION][steps]
        matched = {j: t for j, _, t, _ in _matched(labelled, truth)} if truth is not None else {}
        shown = {"true": matched[i][steps], "inferred": inferred} if i in matched else {"inferred": inferred}
        strip = filmstrip(episode.read(camera, steps), labelled.actions, shown, episode[CONFIDENCE].ravel()[steps])
        yield html.picture(strip, f"The {title} stretch: {episode}, steps {at} to {at + STRIP - 1}, {mean:.0%} sure on average.")


def _matched(labelled: Recordings, truth: Recordings) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Position, inferred and true actions and confidence of each episode that was labelled and whose truth is known."""
    known = {episode.index: episode for episode in truth if ACTION in episode}
    for i, episode in enumerate(labelled):
        if SOURCE not in episode or not (episode[SOURCE].ravel() == INFERRED).all():
            continue
        steps = episode[FROM_FRAME].ravel().astype(int) if FROM_FRAME in episode else np.arange(episode.length)
        index = int(episode[FROM_EPISODE].ravel()[0]) if FROM_EPISODE in episode else episode.index
        if index in known:
            yield i, episode[ACTION], known[index].read(ACTION, steps), episode[CONFIDENCE].ravel()
