import pytest
import torch

from retrodict.training.augment import (
    VPT_AUGMENTATION,
    Affine,
    Augment,
    Blur,
    ColourJitter,
    Flip,
    Mirror,
    Noise,
    ResizedCrop,
    Shift,
)

KINDS = [
    ColourJitter((0.5, 1.5), (0.5, 1.5), (0.5, 1.5), 0.3),
    Affine(20.0, 4.0, (0.8, 1.2), 10.0),
    Shift(4),
    ResizedCrop((0.3, 0.8)),
    Flip(0.5),
    Blur((0.5, 2.0)),
]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def frames():
    still = torch.randint(0, 256, (8, 1, 1, 3, 12, 16), dtype=torch.uint8, generator=generator(7))
    return still.expand(8, 5, 2, 3, 12, 16).contiguous()


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: type(k).__name__)
def test_one_draw_for_what_is_shared(frames, kind):
    def distinct(out):
        return len({tuple(f.flatten().tolist()) for f in out.flatten(0, 2)[:10]})

    window, view = (Augment((kind,), share)(frames, generator()) for share in ("window", "view"))
    assert window.dtype == torch.uint8
    assert window.shape == frames.shape
    assert distinct(window) == 1
    assert distinct(view) > 1
    same = frames[:1].expand_as(frames)
    assert len({tuple(f.flatten().tolist()) for f in Augment((kind,), "window")(same, generator())[:, 0, 0]}) > 1
    assert len({tuple(f.flatten().tolist()) for f in Augment((kind,), "batch")(same, generator())[:, 0, 0]}) == 1


@pytest.mark.parametrize("kind", [*KINDS, VPT_AUGMENTATION.transforms[0]], ids=lambda k: type(k).__name__)
def test_strength_zero_changes_nothing_and_draws_repeat(frames, kind):
    augment = Augment((kind,))
    still = augment(frames, generator(), strength=0.0)
    assert (still.int() - frames.int()).abs().max() <= 1
    assert torch.equal(augment(frames, generator()), augment(frames, generator()))
    assert not torch.equal(augment(frames, generator(1)), augment(frames, generator(2)))


def test_motion_within_a_clip_survives():
    frames = torch.zeros(1, 6, 3, 20, 20, dtype=torch.uint8)
    for t in range(6):
        frames[0, t, :, 8:12, 4 + 2 * t : 8 + 2 * t] = 255
    out = Augment((Shift(2),))(frames, generator(3)).float()
    centre = (out[0, :, 0].sum(1) * torch.arange(20)).sum(1) / out[0, :, 0].sum((1, 2))
    torch.testing.assert_close(centre.diff(), torch.full((5,), 2.0))


def test_affine_moves_by_what_it_says():
    frames = torch.zeros(400, 1, 1, 1, 32, 32)
    frames[..., 14:18, 14:18] = 1
    moved = Affine(shift=5.0)(frames, generator())
    places = torch.arange(32.0)
    mass = moved.sum((1, 2, 3, 4, 5))
    torch.testing.assert_close(mass, torch.full_like(mass, 16.0), rtol=1e-4, atol=1e-3)
    across = (moved.sum(4)[:, 0, 0, 0] * places).sum(1) / mass - 15.5
    assert across.abs().max() <= 5
    assert across.std().item() == pytest.approx(10 / 12**0.5, rel=0.1)


def test_colours():
    grey = torch.full((16, 1, 3, 4, 4), 0.5)
    turned = ColourJitter(hue=0.5, saturation=(0.0, 2.0))(grey, generator())
    torch.testing.assert_close(turned, grey, atol=0.01, rtol=0)
    brighter = ColourJitter(brightness=(1.5, 1.5))(grey, generator())
    torch.testing.assert_close(brighter, torch.full_like(grey, 0.75))
    red = torch.zeros(1, 1, 3, 2, 2)
    red[:, :, 0] = 0.8
    faded = ColourJitter(saturation=(0.0, 0.0))(red, generator())
    torch.testing.assert_close(faded, torch.full_like(red, 0.8 * 0.299), atol=0.01, rtol=0)
    flat = ColourJitter(contrast=(0.0, 0.0))(torch.rand(3, 2, 1, 8, 8), generator())
    assert flat.flatten(1).std(1).max() < 1e-6


def test_blur_keeps_the_mean_of_a_flat_frame_and_softens_edges():
    x = torch.zeros(1, 1, 1, 9, 9)
    x[..., 5:] = 1
    out = Blur((1.0, 1.0))(x)
    assert out[..., 4, 4].item() == pytest.approx(0.31, abs=0.05)
    torch.testing.assert_close(Blur((2.0, 2.0))(torch.ones(1, 2, 3, 9, 9)), torch.ones(1, 2, 3, 9, 9))


def test_noise_takes_vectors():
    x = torch.zeros(1000, 3)
    assert Noise(0.2)(x, generator()).std().item() == pytest.approx(0.2, rel=0.05)


def test_mirror_changes_frames_and_actions_together():
    frames = torch.arange(4, dtype=torch.uint8).expand(64, 2, 3, 4, 4)
    action = torch.tensor([1.0, 0.0, 5.0]).expand(64, 2, 3)  # left, right, turn
    mirror = Mirror(order=(1, 0, 2), sign=(1.0, 1.0, -1.0))
    seen, done = mirror(frames, action, generator())
    flipped = seen[:, 0, 0, 0, 0] == 3
    assert 10 < flipped.sum() < 54
    assert (done[flipped] == torch.tensor([0.0, 1.0, -5.0])).all()
    assert (done[~flipped] == action[0, 0]).all()


def test_normalising_comes_last():
    frames = torch.full((2, 3, 3, 4, 4), 255, dtype=torch.uint8)
    out = Augment((Shift(1),), normalise=((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))(frames, generator())
    torch.testing.assert_close(out, torch.full(frames.shape, 2.0))
