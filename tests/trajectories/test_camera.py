from __future__ import annotations

import numpy as np

from retrodict.trajectories.camera import Camera


def turned(rng):
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn * np.sign(np.linalg.det(turn)), rng.normal(size=3)
    return pose


def test_what_is_unprojected_projects_to_its_pixel():
    camera = Camera.of(50.0, turned(np.random.default_rng(0)), (12, 20))
    depth = np.random.default_rng(1).uniform(0.5, 3, (12, 20))
    pixels, far = camera.project(camera.unproject(depth))
    across, down = np.meshgrid(np.arange(20) + 0.5, np.arange(12) + 0.5)
    np.testing.assert_allclose(pixels, np.stack([across, down], -1), atol=1e-9)
    np.testing.assert_allclose(far, depth)


def test_the_field_of_view_ends_at_the_edges():
    camera = Camera.of(90.0, np.eye(4), (10, 10))
    pixels, depth = camera.project(np.array([[0, -1, 1], [0, 1, 1], [1, 0, 1], [0, 0, -2.0]]))
    np.testing.assert_allclose(pixels[:3], [[5, 0], [5, 10], [10, 5]], atol=1e-12)
    assert depth[3] == -2


def test_a_camera_survives_json():
    camera = Camera.of(40.0, turned(np.random.default_rng(2)), (8, 9))
    again = Camera.from_json(camera.to_json())
    assert again.size == camera.size
    np.testing.assert_array_equal(again.intrinsics, camera.intrinsics)
    np.testing.assert_array_equal(again.pose, camera.pose)
