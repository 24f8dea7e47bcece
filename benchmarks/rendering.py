"""How fast scenes of MuJoCo are drawn and recorded on a CPU, against MuJoCo's own defaults and with more and more workers.

    python benchmarks/rendering.py            # writes results/benchmarks/rendering.json; minutes, on a quiet machine

Each scene is drawn by `Renderer` as the worlds use it, by MuJoCo's renderer with its usual settings, and by MuJoCo's renderer
with the fast settings written out by hand on the same model with the arm hidden: the two ends between which a wrapper can be.
Every drawer has its turn in every round and medians are compared. Frames per second are of CPU time, so that neighbours on the
machine do not count. Workers are processes that draw at the same time: they are linear where each of n draws as much in a second
of its CPU time as one alone; by the clock, which neighbours slow down, it is told beside. Recording is the whole way: physics,
scripted player, pictures, video, LeRobot files.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import reporting
from retrodict.trajectories.stores import lerobot
from retrodict.worlds import make, record
from retrodict.worlds.remote import Remote

ROOT = Path(__file__).parents[1]

#: World, side in pixels -> frames per second and core that specs/_visuomotor-sim.md measured with this recipe (lower ends).
SCENES = {
    ("dm-control/point_mass-easy", 64): 1300,
    ("dm-control/point_mass-easy", 84): 970,
    ("dm-control/reacher-easy", 64): 790,
    ("dm-control/reacher-easy", 84): 720,
    ("metaworld/door-open", 64): 190,
    ("metaworld/push", 64): 190,
}
SCALED = ("metaworld/door-open", 64)


class Painter:
    """A scene in a process of its own, drawn in one of three ways for some seconds."""

    def __init__(self, world: str, side: int, how: str) -> None:
        self.world = make(
            world, size=(side, side), **({"arm": True, "goal": True} if how == "default" and "meta" in world else {})
        )
        self.world.reset(seed=0)
        physics = self.world.physics if hasattr(self.world, "physics") else None
        self.model = physics.model.ptr if physics else self.world.env.model
        self.data = physics.data.ptr if physics else self.world.env.data
        self.plain: Any = None
        self.draw: Callable[[], Any] = lambda: self.world.renderer.frame(self.data)
        if how != "ours":
            self.draw = self._plain(side, default=how == "default")

    def _plain(self, side: int, default: bool) -> Callable[[], Any]:
        import mujoco

        self.world.renderer.close()
        if default:
            quality = self.model.vis.quality
            quality.offsamples, quality.shadowsize = 4, 4096 if "metaworld" in self.world.id else 2048
        self.plain = renderer = mujoco.Renderer(self.model, side, side)
        if not default:
            for flag in ("SHADOW", "REFLECTION", "SKYBOX", "HAZE"):
                renderer.scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = 0
        camera = next(iter(self.world.renderer.views.values())).camera

        def draw() -> Any:
            renderer.update_scene(self.data, camera)
            return renderer.render()

        return draw

    def rate(self, seconds: float) -> tuple[float, float]:
        """Frames per second of CPU time, and of the clock."""
        self.draw()
        count, began, cpu = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - began < seconds:
            self.draw()
            count += 1
        return count / (time.process_time() - cpu), count / (time.perf_counter() - began)

    def close(self) -> None:
        if self.plain is not None:
            self.plain.close()
        self.world.close()


def drawn(world: str, side: int, rounds: int, seconds: float) -> dict[str, float]:
    """Frames per second of CPU time of each drawer."""
    names = {"ours": "ours", "by hand": "fast settings by hand", "default": "MuJoCo's defaults"}
    painters = {how: Remote("rendering:Painter", world, side, how) for how in names}
    rates: dict[str, list[float]] = {how: [] for how in names}
    for _ in range(rounds):
        for how, painter in painters.items():
            painter.ask("rate", seconds)
            rates[how].append(painter.answer()[0])
    for painter in painters.values():
        painter.close()
    return {names[how]: round(median(values), 1) for how, values in rates.items()}


def scaled(world: str, side: int, most: int, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Frames per second of 1, 2, 4, ... processes together, of their CPU time and by the clock."""
    painters = [Remote("rendering:Painter", world, side, "ours") for _ in range(most)]
    counts = [n for n in (1, 2, 4, 8, 16, 32) if n <= most]
    rates: dict[int, list[tuple[float, float]]] = {n: [] for n in counts}
    for _ in range(rounds):
        for n in counts:
            for painter in painters[:n]:
                painter.ask("rate", seconds)
            answers = [painter.answer() for painter in painters[:n]]
            rates[n].append((sum(cpu for cpu, _ in answers), sum(clock for _, clock in answers)))
    for painter in painters:
        painter.close()
    return {
        str(n): {"CPU time": round(median(cpu for cpu, _ in v), 1), "clock": round(median(clock for _, clock in v), 1)}
        for n, v in rates.items()
    }


def recorded(world: str, workers: int, episodes: int) -> float:
    """Frames per second of the clock of a whole recording."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        path = record(world, Path(folder) / "out", episodes, workers=workers, progress=False)
        seconds = time.perf_counter() - began
        return round(lerobot.read(path).steps / seconds, 1)


def main() -> None:
    parser = reporting.options("rendering", __doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns that each drawer has")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="most processes at a time")
    options = parser.parse_args()
    rates = {}
    for (world, side), page in SCENES.items():
        rates[f"{world}, {side} px"] = drawn(world, side, options.rounds, options.seconds) | {"specification": float(page)}
        print(world, side, rates[f"{world}, {side} px"])
    world, side = SCALED
    together = scaled(world, side, options.workers, options.rounds, options.seconds)
    print("processes", together)
    whole = {str(n): recorded(world, n, 16 * n) for n in (1, options.workers)}
    print("recording", whole)
    slowest = min(entry["ours"] / entry["specification"] for entry in rates.values())
    wrapping = min(entry["ours"] / entry["fast settings by hand"] for entry in rates.values())
    most = max(map(int, together))
    linear = together[str(most)]["CPU time"] / together["1"]["CPU time"] / most
    checks = [
        reporting.check(
            "frames per second and core against the specification's, slowest scene", slowest, ">= 0.8", slowest >= 0.8
        ),
        reporting.check(
            "frames per second against the fast settings written out by hand, slowest scene", wrapping, ">= 0.8", wrapping >= 0.8
        ),
        reporting.check(f"{most} processes against {most} times one", linear, ">= 0.8", linear >= 0.8),
    ]
    name = f"{world}, {side} px"
    reporting.write(
        options.out,
        "rendering",
        work=f"frames of {name} (and five other scenes, see `measured`), frames per second of CPU time, one process",
        ours=rates[name]["ours"],
        peers={peer: rate for peer, rate in rates[name].items() if peer != "ours"},
        ratio=checks[1]["value"],
        checks=checks,
        measured={
            "frames per second and core": rates,
            f"{name}: frames per second of several processes": together,
            f"{world}: frames per second recorded, by workers": whole,
        },
        packages=("mujoco", "dm-control", "metaworld", "numpy"),
        machine=os.environ.get("MUJOCO_GL", "egl"),
    )


if __name__ == "__main__":
    main()
