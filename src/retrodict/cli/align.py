"""`retrodict align`: are video and actions in step?"""

from __future__ import annotations

from collections.abc import Sequence

from retrodict.cli import show
from retrodict.cli.arguments import UNSAID, Number, OptionalPath, ReadingOptions, Recorded, parse


def run(argv: Sequence[str]) -> None:
    parse(align, argv, "align")


def align(
    recordings: Recorded,
    /,
    reading: ReadingOptions = UNSAID,
    mend: OptionalPath = None,
    episodes: bool = False,
    seed: Number = 0,
    json: bool = False,
) -> None:
    """Find the lag between what is seen and the actions, per episode and before anything is learned.

    An action shows in the change that it causes. Small inverse models are fitted at every lag from -3 to 3; the lag at which they
    explain the actions best, on episodes they did not see, is the lag of the recordings. Lag 0 means that action[t] leads from
    observation[t] to observation[t+1], lag 1 that it led to observation[t].

    Example: retrodict align play --mend play-in-step

    Args:
        recordings: file or folder; at least one episode with actions.
        reading: how it is read.
        mend: write the recordings, with actions moved to where they belong, into this folder.
        episodes: list every episode.
        seed: seed of the small models.
        json: print JSON.
    """
    from retrodict.trajectories import alignment
    from retrodict.trajectories.stores import open

    found = open(recordings, **reading.options)
    lags = alignment.align(found, seed=seed)
    if json:
        show.as_json(lags.to_json())
    else:
        show.say(str(lags))
        show.heading("Share of the actions explained, by lag")
        show.table([f"{lag:+d}" for lag in lags.scores], [[f"{score:.1%}" for score in lags.scores.values()]])
        if episodes:
            show.heading("Episodes")
            rows = ((e.episode, "cannot be told" if e.lag is None else f"{e.lag:+d}") for e in lags.episodes.values())
            show.table(("episode", "lag"), rows)
    if mend is not None:
        alignment.mend(found, lags).save(mend)
        if not json:
            show.say(f"the recordings, in step, stand in {mend}.")
