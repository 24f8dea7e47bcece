"""Pictures of MuJoCo scenes, fast on a CPU: no anti-aliasing, shadows or reflections, and nothing drawn that need not be seen.

OpenGL without a screen comes from EGL or from OSMesa. MuJoCo asks which when it is first imported, so whoever needs it here takes
it from `offscreen`, which chooses before, and makes MuJoCo ask again where somebody else was first.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib
import os
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from types import ModuleType
from typing import Any, Literal

import numpy as np

from retrodict.errors import DataError, RetrodictError, require
from retrodict.trajectories import Feature
from retrodict.trajectories.camera import Camera
from retrodict.trajectories.features import DEPTH, IMAGES

Kind = Literal["rgb", "depth", "segmentation"]

#: What Debian calls the libraries.
PACKAGES = {"egl": "libegl1 libgl1-mesa-dri libopengl0", "osmesa": "libosmesa6"}

#: What is switched off unless `flags` says otherwise.
COSTLY = ("shadow", "reflection", "skybox", "haze")

_DECIDING = threading.Lock()


def offscreen() -> ModuleType:
    """MuJoCo with an OpenGL that needs no screen: EGL where it is installed, else OSMesa; `MUJOCO_GL` overrides.

    Raises MissingExtraError where MuJoCo is not installed, RetrodictError naming what is missing where OpenGL cannot be loaded.
    """
    with _DECIDING:  # worlds side by side are made in threads, and to one of them MuJoCo would be half imported
        undecided = sys.platform == "linux" and "MUJOCO_GL" not in os.environ
        if undecided:
            there = ctypes.util.find_library
            if there("EGL") and (there("OpenGL") or there("GL")):
                os.environ["MUJOCO_GL"] = "egl"
            elif there("OSMesa"):
                os.environ["MUJOCO_GL"] = "osmesa"
        if os.environ.get("MUJOCO_GL") == "osmesa":
            os.environ.setdefault("PYOPENGL_PLATFORM", "osmesa")
        # Mesa draws in the thread that asks: worlds side by side share out the cores.
        os.environ.setdefault("LP_NUM_THREADS", "0")
        try:
            if undecided and "mujoco" in sys.modules:
                importlib.reload(sys.modules["mujoco"].gl_context)  # or it would ask a screen, and abort where there is none
            return require("mujoco", extra="robots")
        except (AttributeError, TypeError, ctypes.ArgumentError) as error:
            raise _no_opengl(error) from error


def _no_opengl(error: Exception) -> RetrodictError:
    said = " ".join(str(error).split())[:120]
    chosen = os.environ.get("MUJOCO_GL", "")
    ways = [f"{names} (MUJOCO_GL={name})" for name, names in PACKAGES.items() if chosen in (name, "") or chosen not in PACKAGES]
    return RetrodictError(
        f"pictures need OpenGL without a screen and it could not be loaded ({said}); on Debian or Ubuntu: apt install "
        f"{', or '.join(ways)}."
    )


@dataclass(frozen=True)
class View:
    """Where a picture is taken from: a camera of the model, perhaps moved.

    Attributes:
        camera: its name in the model.
        position: place, in the frame of what it is fixed to; None keeps the model's.
        quaternion: turn (w, x, y, z) in that frame; None keeps the model's. Like any camera of MuJoCo's it looks along its -z.
        body: fix it to this body instead, with `position` and `quaternion` in its frame.
        fovy: degrees from top to bottom; None keeps the model's.
        shift: metres to the right, up and back in its own frame, on top: the second eye of a stereo pair.
        turned: upside down.
    """

    camera: str
    position: tuple[float, float, float] | None = None
    quaternion: tuple[float, float, float, float] | None = None
    body: str | None = None
    fovy: float | None = None
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turned: bool = False


class Renderer:
    """Pictures of one model. It belongs to the thread that made it, and is closed explicitly: one per process is the rule.

    Args:
        model: a `mujoco.MjModel`; what is hidden is hidden in it, so a model is drawn by one renderer.
        size: (height, width) of all pictures.
        cameras: name of each picture -> where it is taken from, or names of cameras of the model.
        hide: what is not drawn, as patterns `body:right_l*` (its geoms), `geom:target`, `site:*goal*`.
        flags: MuJoCo's drawing flags by name (`shadow`, `reflection`, ...), where they differ from the fast defaults.
        groups: draw these groups of geoms only; None draws MuJoCo's usual ones.
        farthest: depths are cut off here, in metres; the sky would else be a hundred metres away.

    Raises DataError for a camera or body that the model has not; RetrodictError naming what is missing where there is no OpenGL.
    """

    def __init__(
        self,
        model: Any,
        size: tuple[int, int] = (64, 64),
        cameras: Mapping[str, View] | Sequence[str] = (),
        hide: Sequence[str] = (),
        flags: Mapping[str, bool] | None = None,
        *,
        groups: Sequence[int] | None = None,
        farthest: float = 10.0,
    ) -> None:
        mujoco = offscreen()
        if sys.platform == "linux" and not os.environ.get("MUJOCO_GL") and not os.environ.get("DISPLAY"):
            raise _no_opengl(RuntimeError("neither EGL nor OSMesa is there, and no screen"))
        self.model, self.size, self.farthest = model, size, farthest
        self.views = dict(cameras) if isinstance(cameras, Mapping) else {name: View(name) for name in cameras}
        for view in self.views.values():
            self._id(mujoco.mjtObj.mjOBJ_CAMERA, view.camera)
            if view.body is not None:
                self._id(mujoco.mjtObj.mjOBJ_BODY, view.body)
        drawn = {**dict.fromkeys(COSTLY, False), **(flags or {})}
        hide_from(model, hide)
        quality, screen = model.vis.quality, model.vis.global_
        quality.offsamples = 0
        if not drawn["shadow"]:
            quality.shadowsize = 0
        screen.offheight, screen.offwidth = size
        try:
            self._drawing = mujoco.Renderer(model, *size)
        except Exception as error:  # what a missing library makes of it differs from one to the next
            raise _no_opengl(error) from error
        self._close = weakref.finalize(self, self._drawing.close)
        for name, on in drawn.items():
            self._drawing.scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{name.upper()}")] = on
        self._option = mujoco.MjvOption()
        if groups is not None:
            self._option.geomgroup[:] = [group in groups for group in range(len(self._option.geomgroup))]

    def frame(self, data: Any, kind: Kind = "rgb", view: str | None = None) -> np.ndarray:
        """A picture of `data` (a `mujoco.MjData`), from the first view where none is named.

        Returns `rgb` uint8 (H, W, 3); `depth` float32 (H, W), metres along the optical axis; or `segmentation` int32 (H, W, 2),
        the id of what is seen and its kind (`mujoco.mjtObj`), -1 where nothing is.
        """
        chosen = self.views[view] if view is not None else next(iter(self.views.values()))
        drawing = self._drawing
        drawing.update_scene(data, chosen.camera, self._option)
        if chosen != View(chosen.camera):
            self._aim(data, chosen)
        if kind == "depth":
            drawing.enable_depth_rendering()
            picture = np.minimum(drawing.render(), self.farthest)
            drawing.disable_depth_rendering()
        elif kind == "segmentation":
            drawing.enable_segmentation_rendering()
            picture = drawing.render()
            drawing.disable_segmentation_rendering()
        else:
            picture = drawing.render()
        return np.asarray(picture)

    def observe(self, data: Any, depth: bool = False) -> dict[str, np.ndarray]:
        """What all views show, as `observation.images.<view>` and, where `depth`, `observation.depth.<view>`."""
        seen = {IMAGES + name: self.frame(data, "rgb", name) for name in self.views}
        return seen | {DEPTH + name: self.frame(data, "depth", name) for name in self.views if depth}

    def camera(self, data: Any, view: str | None = None) -> Camera:
        """The pinhole camera of a view as things stand in `data`."""
        chosen = self.views[view] if view is not None else next(iter(self.views.values()))
        place, turn = self._pose(data, chosen)
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = turn * (1, -1, -1), place  # MuJoCo's y is up and it looks along -z
        return Camera.of(self._fovy(chosen), pose, self.size)

    def paint(self, texture: str, image: np.ndarray) -> None:
        """Draw another image (H, W, C) uint8 in the place of a texture of the model, which keeps its size.

        Raises DataError where the sizes differ or the model has no such texture.
        """
        mujoco = offscreen()
        number = self._id(mujoco.mjtObj.mjOBJ_TEXTURE, texture)
        model = self.model
        shape = (int(model.tex_height[number]), int(model.tex_width[number]), int(model.tex_nchannel[number]))
        if image.shape != shape or image.dtype != np.uint8:
            raise DataError(f"the texture {texture!r} is uint8 {shape}, the image {image.dtype} {image.shape}.")
        first = int(model.tex_adr[number])
        model.tex_data[first : first + image.size] = image.reshape(-1)
        self._drawing._gl_context.make_current()
        mujoco.mjr_uploadTexture(model, self._drawing._mjr_context, number)

    def close(self) -> None:
        """Give back the OpenGL context."""
        self._close()

    # ---- where a view is ----------------------------------------------------------------------------------------------

    def _id(self, kind: Any, name: str) -> int:
        mujoco = offscreen()
        number = int(mujoco.mj_name2id(self.model, kind, name))
        if number < 0:
            count = {"CAMERA": self.model.ncam, "BODY": self.model.nbody, "TEXTURE": self.model.ntex}[kind.name[6:]]
            names = (mujoco.mj_id2name(self.model, kind, i) for i in range(count))
            raise DataError(f"the model has no {kind.name[6:].lower()} {name!r}; it has {', '.join(filter(None, names))}.")
        return number

    def _fovy(self, view: View) -> float:
        return view.fovy if view.fovy is not None else float(self.model.camera(view.camera).fovy[0])

    def _pose(self, data: Any, view: View) -> tuple[np.ndarray, np.ndarray]:
        """Place (3,) and axes (3, 3) in the world, x right, y up, z back."""
        number = self.model.camera(view.camera).id
        place, turn = data.cam_xpos[number], data.cam_xmat[number].reshape(3, 3)
        if (view.position, view.quaternion, view.body) != (None, None, None):
            body = self.model.body(view.body).id if view.body is not None else int(self.model.cam_bodyid[number])
            base, axes = data.xpos[body], data.xmat[body].reshape(3, 3)
            local = np.empty(9)
            quaternion = view.quaternion if view.quaternion is not None else self.model.cam_quat[number]
            offscreen().mju_quat2Mat(local, np.asarray(quaternion, float))
            position = view.position if view.position is not None else self.model.cam_pos[number]
            place, turn = base + axes @ np.asarray(position, float), axes @ local.reshape(3, 3)
        place = place + turn @ np.asarray(view.shift)
        return place, turn * (-1, -1, 1) if view.turned else turn

    def _aim(self, data: Any, view: View) -> None:
        place, turn = self._pose(data, view)
        for eye in self._drawing.scene.camera:  # two, for stereo glasses; a plain picture is taken from their middle
            eye.pos[:], eye.forward[:], eye.up[:] = place, -turn[:, 2], turn[:, 1]
            if view.fovy is not None:
                eye.frustum_top = eye.frustum_near * np.tan(np.deg2rad(view.fovy) / 2)
                eye.frustum_bottom = -eye.frustum_top


def hide_from(model: Any, patterns: Sequence[str]) -> None:
    """Make what the patterns name (`body:right_l*`, `geom:target`, `site:*goal*`) invisible in a model.

    Raises DataError for a pattern that names nothing, as it would hide nothing without a word.
    """
    for pattern in patterns:
        kind, _, name = pattern.partition(":")
        if kind not in ("body", "geom", "site"):
            raise DataError(f"what to hide is named body:NAME, geom:NAME or site:NAME; got {pattern!r}.")
        entry, count = getattr(model, kind), getattr(model, f"n{kind}")
        found = [i for i in range(count) if fnmatch(entry(i).name, name)]
        if not found:
            raise DataError(f"nothing in the model is called {pattern!r}.")
        if kind == "body":
            kind, found = "geom", [i for i in range(model.ngeom) if model.geom_bodyid[i] in found]
        rgba, material = (model.geom_rgba, model.geom_matid) if kind == "geom" else (model.site_rgba, model.site_matid)
        rgba[found, 3], material[found] = 0, -1  # what keeps a material is drawn in its colour, alpha or not


def visual_features(names: Sequence[str], size: tuple[int, int], depth: bool = False) -> dict[str, Feature]:
    """Features of what `Renderer.observe` gives."""
    pictures = {IMAGES + name: Feature("video", (*size, 3), ["height", "width", "channels"]) for name in names}
    return pictures | {DEPTH + name: Feature("float32", size, ["height", "width"]) for name in names if depth}
