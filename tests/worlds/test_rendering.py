from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import types

import numpy as np
import pytest

from retrodict.errors import DataError, RetrodictError
from retrodict.worlds import rendering
from retrodict.worlds.rendering import Renderer, View, offscreen

SCENE = """
<mujoco>
  <visual><map znear="0.01"/></visual>
  <asset>
    <texture name="skin" type="2d" builtin="flat" width="8" height="8" rgb1="1 1 1"/>
    <material name="skin" texture="skin"/>
  </asset>
  <worldbody>
    <light pos="0 0 3" dir="0 0 -1" ambient="1 1 1"/>
    <camera name="above" pos="0 0 2" fovy="60"/>
    <geom name="floor" type="plane" size="2 2 .1" rgba="0 0 1 1"/>
    <body name="rod" pos="0.5 0 0.1"><geom name="ball" type="sphere" size=".1" material="skin"/></body>
    <site name="goal" pos="-.5 0 .1" size=".1" rgba="0 1 0 1"/>
  </worldbody>
</mujoco>
"""


@pytest.fixture
def scene():
    pytest.importorskip("mujoco")
    mujoco = offscreen()
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def drawn(scene, cameras=("above",), **options):
    """A renderer that is closed with the test."""
    return Renderer(scene[0], (48, 48), cameras, **options)


def at(picture, camera, place):
    """The pixel at which a place is seen."""
    (across, down), _ = camera.project(np.asarray(place, float))
    return picture[int(down), int(across)]


def test_a_camera_says_where_things_are_seen(scene):
    renderer = drawn(scene)
    picture, camera = renderer.frame(scene[1]), renderer.camera(scene[1])
    assert picture.shape == (48, 48, 3)
    assert picture.dtype == np.uint8
    red, _, blue = at(picture, camera, (0.5, 0, 0.1)).astype(int)
    assert red > 2 * abs(red - blue)  # the white ball
    assert at(picture, camera, (-0.5, 0, 0.1))[1] > at(picture, camera, (0, 0.5, 0))[1] + 50  # the green goal
    renderer.close()


def test_depth_is_metres_along_the_axis_and_unprojects_to_the_scene(scene):
    renderer = drawn(scene)
    depth, camera = renderer.frame(scene[1], "depth"), renderer.camera(scene[1])
    assert depth.dtype == np.float32
    assert at(depth, camera, (0, 0.5, 0)) == pytest.approx(2.0, abs=0.01)
    assert at(depth, camera, (0.5, 0, 0.2)) == pytest.approx(1.8, abs=0.02)
    np.testing.assert_allclose(at(camera.unproject(depth), camera, (0, 0.5, 0))[2], 0, atol=0.01)
    near = Renderer(scene[0], (8, 8), ("above",), farthest=1.0)
    assert near.frame(scene[1], "depth").max() == 1.0
    renderer.close(), near.close()


def test_segmentation_names_what_is_seen(scene):
    renderer = drawn(scene)
    ids, camera = renderer.frame(scene[1], "segmentation"), renderer.camera(scene[1])
    assert at(ids, camera, (0.5, 0, 0.1))[0] == scene[0].geom("ball").id
    assert at(ids, camera, (0, 0.5, 0))[0] == scene[0].geom("floor").id
    assert renderer.frame(scene[1]).dtype == np.uint8  # and the next picture is a picture
    renderer.close()


def test_what_is_hidden_is_not_drawn(scene):
    renderer = drawn(scene, hide=("body:ro*", "site:goal"))
    ids = renderer.frame(scene[1], "segmentation")[..., 0]
    assert set(np.unique(ids)) == {scene[0].geom("floor").id}
    picture = renderer.frame(scene[1]).astype(int)
    assert (picture[..., 2] > picture[..., :2].max(-1)).all()  # the floor's blue everywhere
    renderer.close()
    for pattern, words in (("geom:cube", "nothing in the model"), ("cube", "named body:NAME")):
        with pytest.raises(DataError, match=words):
            drawn(scene, hide=(pattern,))


def test_views_move_turn_follow_bodies_and_make_stereo_pairs(scene):
    views = {
        "above": View("above"),
        "turned": View("above", turned=True),
        "moved": View("above", position=(0.5, 0, 2)),
        "wide": View("above", fovy=90),
        "right": View("above", shift=(0.1, 0, 0)),
        "riding": View("above", body="rod", position=(0, 0, 1.9), quaternion=(1, 0, 0, 0)),
    }
    renderer = drawn(scene, views)
    seen = renderer.observe(scene[1], depth=True)
    assert set(seen) == {f"observation.{kind}.{name}" for kind in ("images", "depth") for name in views}
    pictures = {name: seen[f"observation.images.{name}"].astype(int) for name in views}
    assert np.abs(pictures["turned"] - pictures["above"][::-1, ::-1]).mean() < 3
    assert np.abs(pictures["riding"] - pictures["moved"]).mean() < 1
    for name, picture in pictures.items():
        camera = renderer.camera(scene[1], name)
        assert at(picture, camera, (0.5, 0, 0.1))[0] > 100, name
    left, right = (renderer.camera(scene[1], name).project(np.array([0.5, 0, 0.1]))[0] for name in ("above", "right"))
    assert left[0] - right[0] == pytest.approx(48 / 2 / np.tan(np.pi / 6) * 0.1 / 1.9)  # focal length x baseline / depth
    renderer.close()
    with pytest.raises(DataError, match="no camera 'below'; it has above"):
        drawn(scene, ("below",))
    with pytest.raises(DataError, match="no body 'arm'"):
        drawn(scene, {"a": View("above", body="arm")})


def test_a_texture_can_be_painted_over(scene):
    renderer = drawn(scene)
    camera = renderer.camera(scene[1])
    before = at(renderer.frame(scene[1]), camera, (0.5, 0, 0.1)).astype(int)
    renderer.paint("skin", np.broadcast_to(np.array([255, 0, 0], np.uint8), (8, 8, 3)))
    after = at(renderer.frame(scene[1]), camera, (0.5, 0, 0.1)).astype(int)
    assert before[1] > 100
    assert after[1] == after[2] == 0
    with pytest.raises(DataError, match=r"uint8 \(8, 8, 3\)"):
        renderer.paint("skin", np.zeros((4, 4, 3), np.uint8))
    renderer.close()


def test_groups_of_geoms_can_be_chosen(scene):
    scene[0].geom_group[scene[0].geom("ball").id] = 2
    renderer = drawn(scene, groups=(0,))
    assert set(np.unique(renderer.frame(scene[1], "segmentation")[..., 0])) == {scene[0].geom("floor").id}
    renderer.close()


@pytest.mark.parametrize(
    ("chosen", "error", "packages"),
    [
        ("egl", AttributeError("'NoneType' object has no attribute 'eglQueryString'"), "libegl1 libgl1-mesa-dri libopengl0"),
        ("egl", ctypes.ArgumentError("argument 1: ... no attribute 'glGetError'"), "libopengl0"),
        ("osmesa", AttributeError("'NoneType' object has no attribute 'glGetError'"), "libosmesa6"),
    ],
)
def test_a_missing_library_is_named_with_the_packages_that_bring_it(monkeypatch, chosen, error, packages):
    monkeypatch.setenv("MUJOCO_GL", chosen)
    monkeypatch.setenv("PYOPENGL_PLATFORM", chosen)

    def broken(*args, **options):
        raise error

    monkeypatch.setattr(rendering, "require", broken)
    with pytest.raises(RetrodictError, match=f"apt install .*{packages}") as raised:
        offscreen()
    assert "\n" not in str(raised.value)


def test_opengl_is_chosen_before_mujoco_is_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "mujoco", raising=False)
    for there, chosen in (({"EGL", "GL"}, "egl"), ({"EGL", "OSMesa"}, "osmesa"), ({"OSMesa"}, "osmesa")):
        monkeypatch.setenv("MUJOCO_GL", "")  # what was not there is forgotten again only once it was set here
        monkeypatch.delenv("MUJOCO_GL")
        monkeypatch.setenv("PYOPENGL_PLATFORM", "egl")
        monkeypatch.setattr(ctypes.util, "find_library", lambda name, there=there: name if name in there else None)
        monkeypatch.setattr(rendering, "require", lambda module, extra: types.ModuleType("mujoco"))
        offscreen()
        assert rendering.os.environ["MUJOCO_GL"] == chosen


def test_pictures_are_drawn_also_where_mujoco_was_imported_by_somebody_else():
    pytest.importorskip("mujoco")
    program = f"""if True:
        import mujoco
        from retrodict.worlds.rendering import Renderer
        model = mujoco.MjModel.from_xml_string({SCENE!r})
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        renderer = Renderer(model, (48, 48), ("above",))
        print(renderer.frame(data).shape)
        renderer.close()
    """
    bare = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=bare)
    assert done.stdout == "(48, 48, 3)\n", done.stderr


def test_threads_that_ask_at_once_get_a_whole_mujoco():
    pytest.importorskip("mujoco")
    program = """if True:
        import ctypes.util, time
        from concurrent.futures import ThreadPoolExecutor
        from retrodict.worlds.rendering import offscreen
        find = ctypes.util.find_library
        ctypes.util.find_library = lambda name: time.sleep(0.05) or find(name)  # none has decided before all have asked
        with ThreadPoolExecutor(4) as pool:
            print({module.MjModel.__name__ for module in pool.map(lambda _: offscreen(), range(4))})
    """
    bare = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=bare)
    assert done.stdout == "{'MjModel'}\n", done.stderr
