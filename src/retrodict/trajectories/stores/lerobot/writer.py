"""Writing a LeRobotDataset v3.0, one episode after the other; killed at any moment, the same writer carries on.

A feature that only some of the episodes have is not declared in `info.json`, since LeRobot wants every declared feature in every
row and neither zeros nor nulls would be true. Its rows stand in files of their own, `partial/<feature>/chunk-*/file-*.parquet`
(`episode_index`, `frame_index`, and the feature), its videos among the others, and `read` gives it back to the episodes that have
it. So recordings of which a tenth carry actions open in LeRobot as what they are: a dataset without actions.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from retrodict.errors import DataError
from retrodict.files import named, replacing_folder
from retrodict.trajectories.actions import ActionSpace
from retrodict.trajectories.features import BOOKKEEPING, Feature
from retrodict.trajectories.fingerprint import fingerprint
from retrodict.trajectories.recordings import Recordings
from retrodict.trajectories.stores.lerobot import layout
from retrodict.trajectories.stores.lerobot.assembly import assemble
from retrodict.trajectories.stores.lerobot.extension import Extension, plain
from retrodict.trajectories.stores.lerobot.pieces import Piece, Stage, Values
from retrodict.trajectories.stores.lerobot.source import values_of
from retrodict.trajectories.stores.lerobot.staging import Staging, WrittenWhole


class Writer(WrittenWhole):
    """Writes a LeRobotDataset v3.0; use it as a context, which closes it unless there was an error.

    Until it is closed, what is finished lies in a folder beside `folder`, and a writer of the same settings carries on: skip the
    first `done` episodes. Memory does not grow with the dataset; while closing, disk holds the videos encoded here twice.

    Args:
        folder: the dataset; must not exist, or be empty.
        features: every feature that an episode may have; each episode may lack some.
        fps: steps per second, None where irregular or unknown (an episode's `timestamp` is its clock).
        actions, structures, meta, independent: as in `Recordings`.
        overwrite: replace a dataset that is there.
        codec: encoder of the videos, as in `video.encode`.
        resume_as: names what is written; another run carries on with it only where this is the same.
        data_mb, video_mb: sizes at which files are rolled.

    Raises DataError when the folder is taken, another process is writing it, something else was begun there, or a feature is such
    that LeRobot cannot keep it.
    """

    def __init__(
        self,
        folder: str | Path,
        features: Mapping[str, Feature],
        fps: float | None,
        *,
        actions: ActionSpace | None = None,
        structures: Mapping[str, Any] | None = None,
        meta: Mapping[str, Any] | None = None,
        independent: bool = False,
        overwrite: bool = False,
        codec: str = "libx264",
        resume_as: str = "",
        data_mb: float = 100,
        video_mb: float = 200,
    ) -> None:
        self.folder, self.sizes = named(folder), (data_mb, video_mb)
        self.features = {name: feature for name, feature in features.items() if name not in BOOKKEEPING}
        if wrong := [name for name in self.features if "/" in name]:
            raise DataError(f"a feature cannot be called {wrong[0]!r}: LeRobot allows no slash in names.")
        for name, feature in self.features.items():
            if feature.is_visual and (len(feature.shape) != 3 or feature.shape[2] not in (1, 3)):
                raise DataError(f"{name!r}: frames are (height, width, 3 or 1), its shape is {list(feature.shape)}.")
        occupied = self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir()))
        if occupied and not (overwrite and (self.folder / layout.INFO).exists()):
            how = (
                "say overwrite=True, on the command line --overwrite, to replace it"
                if (self.folder / layout.INFO).exists()
                else "it is no LeRobotDataset"
            )
            raise DataError(f"{self.folder} exists already ({how}); nothing was written.")
        self.extension = Extension(actions, fps, independent, structures or {}, meta or {})
        self.fps = fps or 1.0  # LeRobot needs a number
        self._stage = Stage(self.features, self.fps, codec)
        declared = {name: feature.to_json() for name, feature in self.features.items()}
        about = [resume_as, fps, codec, declared, actions and actions.to_json()]
        settings = hashlib.blake2b(json.dumps(about, default=plain).encode(), digest_size=16).hexdigest()
        self._staging = Staging(self.folder, settings)

    @property
    def done(self) -> int:
        """Number of additions that are finished, of this and earlier runs: where to carry on."""
        return self._staging.done

    def add(
        self,
        values: Values,
        *,
        tasks: Sequence[str] = (),
        domain: str | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        """One episode. `timestamp` (T,) in `values` is its own clock, `task_index` (T,) counts in `tasks`.

        Raises DataError when features are unknown, of other shape or dtype than declared or of unequal length, or when `action`
        is not finite; nothing of the episode is kept then.
        """
        self.add_pieces([Piece(values, tuple(tasks), domain, meta or {})])

    def add_pieces(self, pieces: Iterable[Piece]) -> None:
        """Any number of episodes as one addition: after a restart either all of them are done or none."""
        self._staging.finish([self._stage(piece, number, self._staging) for number, piece in enumerate(pieces)])

    def close(self) -> Path:
        """Put the dataset together and into its place.

        Raises DataError when there are no episodes.
        """
        if next(self._staging.records(), None) is None:
            self._staging.remove()
            raise DataError(f"{self.folder}: no episodes to write; none was added, or every step of all was withheld.")
        whole = self._staging.path / "whole"  # there, so that whoever carries on after a kill clears it away
        shutil.rmtree(whole, ignore_errors=True)
        try:
            assemble(self._staging, whole, self.features, self.fps, self.extension, *self.sizes)
            with replacing_folder(self.folder, layout.INFO) as out:
                whole.rename(out)
        except BaseException:
            self._staging.release()
            raise
        self._staging.remove()
        return self.folder

    def release(self) -> None:
        self._staging.release()


def write(recordings: Recordings, folder: str | Path, *, overwrite: bool = False, **options: Any) -> Path:
    """Write recordings as a LeRobotDataset v3.0; `read` gives them back equal, but for frames that were encoded as video.

    Videos that are MP4 files already are linked, not encoded anew. A feature that only some episodes have stays absent from the
    others (see the head of this file for how). Killed at any moment, the same call carries on.

    Args:
        recordings: what to write; episodes are numbered anew and keep in `meta` where they come from (`origin/*`).
        folder: the dataset to make.
        overwrite: replace a dataset that is there.
        options: `codec`, `data_mb`, `video_mb` of `Writer`.

    Raises DataError when the folder is taken, there are no episodes, or an action is not finite; nothing is overwritten then.
    """
    writer = Writer(
        folder,
        recordings.features,
        recordings.fps,
        actions=recordings.actions,
        structures=recordings.structures,
        meta=recordings.meta,
        independent=recordings.independent,
        overwrite=overwrite,
        resume_as=fingerprint(recordings),
        **options,
    )
    with writer:
        for episode in recordings.episodes[writer.done :]:
            values = values_of(episode, recordings)
            writer.add(values, tasks=episode.tasks, domain=episode.domain, meta=episode.origin)
    return writer.folder
