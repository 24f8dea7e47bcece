from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from retrodict.errors import DataError
from retrodict.metrics import neighbours
from retrodict.metrics.neighbours import classify, knn, overlap, regress, retrieval
from retrodict.metrics.representation import alignment, distance_from, effective_rank, health, spread, uniformity, usage


def test_the_effective_rank_counts_directions():
    eye = torch.eye(4)
    assert effective_rank(torch.cat([eye, -eye])) == pytest.approx(4)
    assert effective_rank(torch.cat([eye[:2], -eye[:2]])) == pytest.approx(2)
    line = torch.arange(5.0)[:, None] * torch.ones(4)
    assert effective_rank(line) == pytest.approx(1)
    # Two directions with variances in the ratio 3 to 1 have the rank exp(H(3/4, 1/4)).
    z = torch.tensor([[math.sqrt(3), 0], [-math.sqrt(3), 0], [0, 1], [0, -1.0]])
    assert effective_rank(z) == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))


def test_rank_misses_a_total_collapse_and_spread_does_not():
    z = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    well, collapsed = health(z), health(1e-5 * z + 1)
    assert collapsed.rank == pytest.approx(well.rank, rel=0.01)
    assert collapsed.std < 1e-4 < 0.9 < well.std
    assert collapsed.std_unit < 0.01 < 0.9 < well.std_unit < 1.1
    assert effective_rank(torch.ones(5, 3)) == 1
    with pytest.raises(DataError, match="at least 2"):
        spread(torch.ones(1, 3))


def test_codebook_usage():
    even = usage(np.arange(8) % 4, 4)
    assert even["perplexity"] == pytest.approx(4)
    assert even["largest"] == pytest.approx(0.25)
    one = usage(torch.zeros(2, 5, dtype=torch.long), 4)
    assert one == {"entropy": 0, "perplexity": 1, "largest": 1, "used": 0.25}
    with pytest.raises(DataError, match="below 4"):
        usage([4], 4)


def test_alignment_uniformity_and_the_way_from_the_beginning():
    eye = torch.eye(3)
    assert alignment(eye, 2 * eye) == 0
    assert alignment(eye, -eye) == pytest.approx(4)
    assert uniformity(eye) == pytest.approx(-4)  # all squared distances are 2
    assert distance_from({"w": 2 * eye}, {"w": eye}) == pytest.approx(1)
    with pytest.raises(DataError, match="different nets"):
        distance_from({"w": eye}, {"v": eye})


@pytest.mark.parametrize("many", [10**6, 1])
def test_neighbours_are_those_of_a_plain_search_however_they_are_found(monkeypatch, many):
    monkeypatch.setattr(neighbours, "MANY", many)
    monkeypatch.setattr(neighbours, "BLOCK", 7)
    rng = np.random.default_rng(0)
    query, keys = rng.normal(size=(20, 3)), rng.normal(size=(30, 3))
    apart = np.linalg.norm(query[:, None] - keys, axis=-1)
    found, distances = knn(torch.from_numpy(query), torch.from_numpy(keys), 5)
    np.testing.assert_array_equal(found, apart.argsort(1)[:, :5])
    np.testing.assert_allclose(distances, np.sort(apart, 1)[:, :5], atol=1e-9)
    among = np.linalg.norm(keys[:, None] - keys, axis=-1)
    np.fill_diagonal(among, np.inf)
    found, _ = knn(torch.from_numpy(keys), torch.from_numpy(keys), 3, leave_out=True)
    np.testing.assert_array_equal(found, among.argsort(1)[:, :3])
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, keys)]
    _, distances = knn(torch.from_numpy(query), torch.from_numpy(keys), 4, "cosine")
    np.testing.assert_allclose(distances, np.sort(1 - unit[0] @ unit[1].T, 1)[:, :4], atol=1e-9)


def test_what_is_built_on_neighbours():
    keys = torch.tensor([[0.0], [1.0], [3.0]])
    values = torch.tensor([[0.0, 1.0], [2.0, 1.0], [9.0, 9.0]])
    query = torch.tensor([[0.25]])
    torch.testing.assert_close(regress(query, keys, values, 2), torch.tensor([[1.0, 1.0]]))
    near, far = math.exp(-0.25), math.exp(-0.75)
    weighted = regress(query, keys, values, 2, weights="exponential")
    torch.testing.assert_close(weighted[0, 0], torch.tensor(2 * far / (near + far)))
    assert classify(query, keys, torch.tensor([1, 0, 0]), 1).tolist() == [1]
    assert classify(query, keys, torch.tensor([1, 0, 0]), 3).tolist() == [0]
    assert classify(keys, keys, torch.tensor([0, 1, 1]), 1, leave_out=True).tolist() == [1, 0, 1]
    eye = torch.eye(4)
    assert retrieval(eye + 0.1, eye, torch.arange(4)) == 1
    assert retrieval(eye, eye, torch.tensor([1, 0, 2, 3])) == 0.5
    grid = torch.arange(100.0)[:, None]
    assert overlap(grid + 0.4, grid) == 1
    assert overlap(grid + 500, grid) == 0
    with pytest.raises(DataError, match="4 nearest neighbours"):
        knn(query, keys, 4)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e4])
def test_neighbours_are_the_nearest_wherever_the_origin_is(offset):
    generator = torch.Generator().manual_seed(0)
    keys = (torch.randn(500, 8, generator=generator) + offset).float()
    query = keys[:50] + 0.125  # exact in float32 there, too
    found, apart = knn(query, keys, 1)
    exact = (query[:, None].double() - keys.double()).norm(dim=-1)
    assert torch.equal(found[:, 0], exact.argmin(1))
    torch.testing.assert_close(apart[:, 0].double(), exact.amin(1), rtol=1e-4, atol=1e-4)


def test_distances_are_those_of_the_differences():
    keys = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    keys[0] = 1e8  # one that is far off takes no digits from the others
    query = keys[1:101] + 1e-2
    found, apart = knn(query, keys, 1)
    exact = (query.double() - keys[found[:, 0]].double()).norm(dim=-1)
    torch.testing.assert_close(apart[:, 0].double(), exact, rtol=1e-3, atol=0)
    assert knn(keys, keys, 1)[1].max() == 0
