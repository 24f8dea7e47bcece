import pytest
import torch

from retrodict.networks.keypoint_codec import KeypointCodec


def dots(n, seed=0, side=24):
    """A bright dot somewhere on a ramp, uint8 (n, 3, side, side), and where it is, (n, 2), x first, between -1 and 1."""
    at = torch.rand(n, 2, generator=torch.Generator().manual_seed(seed)) * 1.4 - 0.7
    across, down = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="xy")
    near = (-((across - at[:, :1, None]) ** 2 + (down - at[:, 1:, None]) ** 2) / 0.02).exp()
    ramp = 0.4 * (across + 1) / 2
    return (255 * torch.stack([torch.maximum(near, ramp), near, ramp.expand_as(near)], 1)).to(torch.uint8), at


@pytest.fixture(scope="module")
def learned():
    torch.manual_seed(0)
    frames, _ = dots(512)
    codec = KeypointCodec((3, 24, 24), 16, (8, 16, 16))
    codec.fit_mean(frames)
    optimiser = torch.optim.Adam(codec.parameters(), 3e-3)
    for step in range(200):
        loss = codec(frames[torch.randperm(512, generator=torch.Generator().manual_seed(step))[:64]])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        optimiser.step()
    return codec.requires_grad_(False)


def test_leading_dimensions_are_kept_and_places_are_within_the_frame():
    codec, frames = KeypointCodec((3, 20, 24), 5), torch.randint(0, 256, (2, 3, 3, 20, 24), dtype=torch.uint8)
    places = codec.encode(frames)
    assert places.shape == (2, 3, 10)
    assert places.abs().max() <= 1
    again = codec.decode(places)
    assert again.shape == frames.shape
    assert again.dtype == torch.uint8
    assert torch.equal(codec.encode(frames[1]), places[1])


def test_what_does_not_move_is_drawn_before_anything_is_learned():
    codec = KeypointCodec((3, 20, 20), 2)
    with torch.no_grad():
        codec.decoder.layers[-1].weight.zero_()
        codec.decoder.layers[-1].bias.zero_()
    frames = torch.randint(0, 256, (40, 3, 20, 20), dtype=torch.uint8)
    codec.fit_mean(frames)
    made = codec.decode(torch.zeros(1, 4))[0].float()
    assert (made - frames.float().mean(0)).abs().max() <= 0.51


def test_its_points_say_where_a_dot_is_and_draw_it_there(learned):
    frames, at = dots(200, seed=1)
    places = learned.encode(frames)
    told = torch.cat([places, torch.ones(200, 1)], 1)
    off = told @ torch.linalg.lstsq(told, at).solution - at
    assert off.square().mean() < 0.01 * at.var(0).mean()
    error = (learned.decode(places).float() - frames.float()).square().mean()
    assert error < 0.15 * (frames.float() - frames.float().mean(0)).square().mean()
