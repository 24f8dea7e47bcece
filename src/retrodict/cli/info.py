"""`retrodict info`: what recordings hold, before anything is done with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodict.cli import show
from retrodict.cli.arguments import UNSAID, ReadingOptions, Recorded, parse

if TYPE_CHECKING:
    from retrodict.trajectories import Recordings

SHOWN = 12


def run(argv: Sequence[str]) -> None:
    parse(info, argv, "info")


def info(recordings: Recorded, /, reading: ReadingOptions = UNSAID, episodes: bool = False, json: bool = False) -> None:
    """Say what recordings hold: episodes, features and who has them, what the actions mean, and what had to be guessed.

    Opens a LeRobot dataset (v2.0, v2.1, v3.0), a Minari dataset, an HDF5 file in the manner of D4RL or robomimic, a folder of
    videos with or without a log of actions, and time series in CSV, Parquet, NPY or NPZ. Nothing is written.

    Example: retrodict info play

    Args:
        recordings: file or folder.
        reading: how it is read.
        episodes: list every episode.
        json: print JSON.
    """
    from retrodict.trajectories.stores import open

    found = open(recordings, **reading.options)
    summary = summarise(found, recordings)
    if json:
        show.as_json({**summary, "episode_list": listed(found)} if episodes else summary)
        return
    _print(summary)
    if episodes:
        show.heading("Episodes")
        header = ("episode", "steps", "task", "domain", "lacks")
        rows = ((e["episode"], e["steps"], e["task"] or "", e["domain"] or "", ", ".join(e["lacks"])) for e in listed(found))
        show.table(header, rows, right=("episode", "steps"))


def summarise(recordings: Recordings, path: Path) -> dict[str, Any]:
    """What `info` says, as JSON: the keys are part of what scripts may rely on."""
    from retrodict.trajectories.stores import kind_of

    lengths = sorted(episode.length for episode in recordings)
    actions = recordings.actions
    return {
        "path": str(path),
        "format": kind_of(path),
        "origin": {key: value for key, value in recordings.meta.get("origin", {}).items() if key != "guessed"},
        "bytes": sum(f.stat().st_size for f in ([path] if path.is_file() else path.rglob("*")) if f.is_file()),
        "episodes": len(recordings),
        "steps": recordings.steps,
        "fps": recordings.fps,
        "seconds": recordings.steps / recordings.fps if recordings.fps else None,
        "lengths": {"shortest": lengths[0], "median": lengths[len(lengths) // 2], "longest": lengths[-1]} if lengths else None,
        "features": {
            name: {
                "dtype": feature.dtype,
                "shape": list(feature.shape),
                "names": feature.names,
                "episodes": sum(name in episode for episode in recordings),
            }
            for name, feature in recordings.features.items()
        },
        "actions": actions.to_json() if actions else None,
        "labels": labels(recordings),
        "tasks": list(recordings.tasks),
        "domains": list(recordings.domains),
        "structures": sorted(recordings.structures),
        "guessed": list(recordings.meta.get("guessed", ())),
    }


def labels(recordings: Recordings) -> dict[str, Any] | None:
    """Where the actions come from (recorded, inferred, corrected; steps of each), how sure the inferred ones are, and how many
    steps are marked as missing.
    """
    import numpy as np

    from retrodict.trajectories.features import ACTION, CONFIDENCE, INFERRED, SOURCE

    acting = recordings.having(ACTION)
    if not len(acting):
        return None
    counts, sure, missing = np.zeros(3, np.int64), [], 0
    for episode in acting:
        there = episode.there(ACTION)
        missing += int((~there).sum())
        if SOURCE not in episode:
            counts[0] += there.sum()
            continue
        source = episode[SOURCE].astype(np.int64).ravel()
        counts += np.bincount(source[there], minlength=3)[:3]
        if CONFIDENCE in episode:
            sure.append(episode[CONFIDENCE].ravel()[there & (source == INFERRED)])
    confident = np.concatenate(sure) if sure else np.empty(0)
    return {
        "recorded": int(counts[0]),
        "inferred": int(counts[1]),
        "corrected": int(counts[2]),
        "missing": missing,
        "confidence": float(confident.mean()) if len(confident) else None,
    }


def listed(recordings: Recordings) -> list[dict[str, Any]]:
    """One entry per episode."""
    return [
        {
            "episode": episode.index,
            "steps": episode.length,
            "task": next(iter(episode.tasks), None),
            "domain": episode.domain,
            "lacks": [name for name in recordings.features if name not in episode],
        }
        for episode in recordings
    ]


def _print(summary: dict[str, Any]) -> None:
    n = summary["episodes"]
    length = summary["lengths"]
    show.say(f"{summary['path']}: {summary['format']}, {show.size(summary['bytes'])}")
    if (origin := summary["origin"]) and origin["path"] != summary["path"]:
        show.say(f"first read from {origin['path']} ({origin['format']})")
    parts = [show.count(n, "episode"), show.count(summary["steps"], "step")]
    if summary["fps"]:
        parts.append(f"{summary['fps']:g} per second, {show.duration(summary['seconds'])} in all")
    if length:
        shortest, median, longest = length["shortest"], length["median"], length["longest"]
        same = f"each {median} steps long" if shortest == longest else f"{shortest} to {longest} steps long, half below {median}"
        parts.append(same if n > 1 else "")
    show.say("; ".join(filter(None, parts)))
    show.heading("Features")
    rows = (
        (name, f["dtype"], " x ".join("any" if d < 0 else str(d) for d in f["shape"]), _share(f["episodes"], n))
        for name, f in summary["features"].items()
    )
    show.table(("feature", "type", "shape of a step", "in episodes"), rows)
    _print_actions(summary)
    for title in ("tasks", "domains", "structures"):
        if summary[title]:
            show.heading(f"{title.capitalize()} ({len(summary[title])})")
            for text in summary[title][:SHOWN]:
                show.say(f"  {text}")
            if len(summary[title]) > SHOWN:
                show.say(f"  and {len(summary[title]) - SHOWN} more (--json lists them)")
    if summary["guessed"]:
        show.heading("Guessed; say otherwise with options of `retrodict convert`")
        for sentence in summary["guessed"]:
            show.say(f"  {sentence}")


def _print_actions(summary: dict[str, Any]) -> None:
    show.heading("Actions")
    space, where = summary["actions"], summary["labels"]
    if where is None:
        show.say("  No episode carries actions. `retrodict label` can infer them with a model that was trained elsewhere.")
    else:
        acting = summary["features"]["action"]["episodes"]
        parts = [f"{where[kind]:,} steps {kind}" for kind in ("recorded", "inferred", "corrected", "missing") if where[kind]]
        if where["confidence"] is not None:
            parts.append(f"mean confidence of the inferred {where['confidence']:.2f}")
        show.say(f"  in {acting} of {show.count(summary['episodes'], 'episode')}: {', '.join(parts)}")
    if space:
        rows = (
            (name, part["kind"], ", ".join(part["names"]), _range(part), part.get("unit", ""))
            for name, part in space["parts"].items()
        )
        show.table(("part", "kind", "names", "range", "unit"), rows)
        leads = {True: "action[t] leads to observation[t+1]", False: "action[t] led to observation[t]", None: "unknown"}
        show.say(f"  mode: {space['mode']}; frame of reference: {space['frame']}; timing: {leads[space['leads']]}")


def _range(part: dict[str, Any]) -> str:
    if part["kind"] != "box":
        return ""
    return "unknown" if part["low"] is None and part["high"] is None else f"{part['low']} to {part['high']}"


def _share(having: int, of: int) -> str:
    return "all" if having == of else f"{having} of {of}"
