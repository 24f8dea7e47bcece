from __future__ import annotations

import numpy as np
import pytest
import torch

from retrodict.claims.baselines.true_state import TrueState
from retrodict.errors import DataError, RetrodictError
from retrodict.networks.residual_quantiser import ResidualQuantiser
from retrodict.objectives.focal import focal
from retrodict.systems.checks import Subject
from retrodict.systems.policies.vq_bet import BehaviorNet, VQBeT
from retrodict.training.run import Run
from retrodict.trajectories import ActionSpace, Discrete, from_arrays
from retrodict.trajectories.features import STATE

from .crossroads import two_ways

QUIET = Run(progress=False)
TINY = {"chunk": 3, "codes": 4, "latent": 4, "hidden": 16, "depth": 1, "heads": 2, "token_steps": 3, "steps": 4, "batch": 4}


def test_codes_find_the_clusters_and_the_second_book_what_the_first_leaves():
    torch.manual_seed(0)
    quantiser = ResidualQuantiser(2, codes=4, layers=2)
    centres = torch.tensor([[3.0, 3.0], [3.0, -3.0], [-3.0, 3.0], [-3.0, -3.0]])
    parts = torch.tensor([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.5], [0.0, -0.5]])
    for _ in range(600):
        which = torch.randint(4, (64, 2))
        quantiser.follow(centres[which[:, 0]] + parts[which[:, 1]])
    vectors = (centres[:, None] + parts).flatten(0, 1)
    choices = quantiser(vectors)
    assert len({tuple(row) for row in choices.tolist()}) == 16
    torch.testing.assert_close(quantiser.embed(choices), vectors, atol=0.05, rtol=0)


def test_a_code_that_nothing_chooses_begins_anew():
    torch.manual_seed(0)
    quantiser = ResidualQuantiser(1, codes=2, layers=1, decay=0.8)
    quantiser.follow(torch.zeros(32, 1))  # both on one spot
    for _ in range(60):
        quantiser.follow(torch.tensor([[1.0], [-1.0]]).repeat(16, 1))
    assert sorted(quantiser.book.ravel().tolist()) == pytest.approx([-1, 1], abs=0.05)


def test_the_focal_loss_is_the_cross_entropy_weighed_by_what_is_not_yet_known():
    logits, choice = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    p = logits.softmax(-1)[0, 0]
    torch.testing.assert_close(focal(logits, choice, 0.0)[0], -p.log())
    torch.testing.assert_close(focal(logits, choice)[0], -((1 - p) ** 2) * p.log())


def test_offsets_are_those_of_the_choices_added_up():
    offsets = torch.arange(2 * 3 * 1 * 2, dtype=torch.float32).view(1, 2, 3, 1, 2)  # two layers of three codes, one action
    said = BehaviorNet.offset(offsets, torch.tensor([[2, 0]]))
    torch.testing.assert_close(said, (offsets[:, 0, 2] + offsets[:, 1, 0]))


def test_where_there_are_two_ways_it_takes_one_and_does_what_is_certain():
    made = two_ways()
    policy = VQBeT(TrueState(device="cpu").fit(made), observed=1, chunk=2, codes=8, token_steps=300, steps=300, device="cpu")
    policy.fit(made, run=QUIET)
    policy.reset()
    states = torch.rand(200, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
    taken = policy.act({STATE: states})
    assert (taken[:, 0].abs() > 0.8).float().mean() > 0.9
    assert 0.3 < (taken[:, 0] > 0).float().mean() < 0.7
    assert (taken[:, 1] - states[:, 0]).abs().mean() < 0.2


def test_it_keeps_the_contract_on_an_encoder(tmp_path):
    made = two_ways(5)
    subject = Subject(VQBeT(TrueState(device="cpu").fit(made), **TINY), made, tmp_path)
    for check in (
        *("fits_and_answers", "repeats_under_a_seed", "resumes_after_an_interruption", "survives_saving_and_loading"),
        *("refuses_nan", "refuses_missing_features"),
    ):
        subject.run(check)


def test_actions_outside_the_episode_do_not_count():
    made = two_ways(5)
    policy = VQBeT(TrueState(device="cpu").fit(made), **TINY, device="cpu").fit(made, run=QUIET)
    batch = policy.reader(made).gather(np.array([[0, 0], [0, 11]]))
    chunks, counts = policy._chunks(policy.net_, batch)
    assert counts.tolist() == [
        [[False, False, False], [True, True, True]],  # before the first step, and from it
        [[True, True, False], [True, False, False]],
    ]
    said = policy.net_["scale"].inverse(chunks[1])
    torch.testing.assert_close(said[0, 1], said[1, 0])  # the last action, as seen from both steps


def test_choices_are_refused_and_acting_needs_a_reset():
    space = ActionSpace({"tool": Discrete(("a", "b"))})
    rows = np.zeros((10, 2), np.float32)
    rows[::2, 0] = rows[1::2, 1] = 1
    made = from_arrays([{STATE: rows, "action": np.arange(10, dtype=np.float32)[:, None] % 2}], fps=1, actions=space)
    with pytest.raises(DataError, match="says continuous actions and 'tool' is a Discrete"):
        VQBeT(TrueState(device="cpu").fit(made), **TINY).fit(made)
    made = two_ways(3)
    policy = VQBeT(TrueState(device="cpu").fit(made), **TINY, device="cpu").fit(made, run=QUIET)
    policy.reset()
    policy.act({STATE: torch.zeros(2, 2)})
    with pytest.raises(RetrodictError, match="2 worlds and is shown 3"):
        policy.act({STATE: torch.zeros(3, 2)})


def test_judging_moves_no_code():
    made = two_ways(5)
    policy = VQBeT(TrueState(device="cpu").fit(made), **TINY, device="cpu").fit(made, run=QUIET)
    tokens = policy.net_["tokens"].eval()
    before = {name: value.clone() for name, value in tokens.state_dict().items()}
    chunks, counts = policy._chunks(policy.net_, policy.reader(made).gather(np.array([[0, 0], [0, 3]])))
    tokens.learn(chunks.flatten(0, 1), counts.flatten(0, 1))
    assert all(torch.equal(value, before[name]) for name, value in tokens.state_dict().items())
