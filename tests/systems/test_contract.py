import builtins
import copy
import dataclasses
import pickle
import random
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from retrodict.errors import DataError
from retrodict.roles import Analysis, Panel, Report
from retrodict.systems import REGISTRY, Card, Spec, catalogue, contract, lookup
from retrodict.systems.checks import CHECKS, SPACES, ContractBroken, Subject, check_system, tiny_recordings
from retrodict.systems.gradient import GradientSystem
from retrodict.systems.laws.chaos_benchmark import ChaosBenchmark
from retrodict.systems.policies.few_shot_cloning import FewShotCloning
from retrodict.systems.policies.nearest_neighbours import NearestNeighbours
from retrodict.systems.recurrent_laws import RecurrentLaw
from retrodict.systems.states.dynamo import DynaMo
from retrodict.systems.states.inverse_dynamics_pretraining import InverseDynamicsPretraining
from retrodict.trajectories import from_arrays
from retrodict.trajectories.features import STATE

from .toys import TOYS, ToyInverse, ToyPolicy, card


@cache
def looking():
    """A fitted encoder of frames, for systems that look through one."""
    return DynaMo(**TINY_FRAMES, frames=3, latent_action=2, hidden=8, depth=1, heads=2, steps=2, batch=4, device="cpu").fit(
        tiny_recordings(SPACES["continuous"])
    )


TINY_FRAMES = {"channels": (4, 4), "strides": (2, 2), "width": 8}
TINY_SEER = {
    **{"history": 3, "ahead": 2, "chunk": 2, "queries": 2, "slots": 4, "vision": 16, "resampler_depth": 1},
    **{"width": 16, "depth": 2, "heads": 2, "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2},
}
TINY_DIFFUSION = {
    **{"chunk": 2, "hidden": 8, "depth": 1, "heads": 2, "registers": 1, "levels": 10, "sampling": 2},
    **{"steps": 4, "batch": 4, "warmup": 1},
}
EXAMPLES = {
    "dynamo": lambda: DynaMo(**TINY_FRAMES, frames=3, latent_action=2, hidden=8, depth=1, heads=2, steps=4, batch=4, warmup=1),
    "inverse-dynamics-pretraining": lambda: InverseDynamicsPretraining(
        **TINY_FRAMES, keypoints=4, hidden=(8,), policy_hidden=(8,), steps=4, batch=4, warmup=1
    ),
    "few-shot-cloning": lambda: FewShotCloning(looking(), hidden=(8,), chunk=2, steps=4, batch=4),
    "uwm": lambda: lookup("uwm")(**TINY_FRAMES, keypoints=4, **TINY_DIFFUSION, foreseen=2, draws=2, points=2, codec_steps=2),
    "vq-bet": lambda: lookup("vq-bet")(
        looking(), chunk=2, codes=4, latent=4, hidden=8, depth=1, heads=2, token_steps=2, steps=4, batch=4
    ),
    "diffusion-policy": lambda: lookup("diffusion-policy")(**TINY_FRAMES, keypoints=4, **TINY_DIFFUSION),
    "nearest-neighbours": lambda: NearestNeighbours(looking(), k=3),
    "deep-linear": lambda: lookup("deep-linear")(whiten=True),
    "rep4ex": lambda: lookup("rep4ex")(width=8, code_steps=4, code_batch=8, steps=4, batch=16, outcome_steps=4),
    "dysts": lambda: ChaosBenchmark(train=5, test=3, starts=2, horizon=0.1),
    "koopman-limits": lambda: lookup("koopman-limits")(dictionary="monomials", degree=(1,)),
    "koopman-vae": lambda: lookup("koopman-vae")(frames=6, latent=4, hidden=4, steps=4, batch=4),
    "seer": lambda: lookup("seer")(**TINY_SEER, steps=4, batch=4, warmup=1),
    "gtf": lambda: catalogue()["gtf"](hidden=4, teacher="adaptive", sequence=6, steps=6, batch=4),
    "al-rnn": lambda: catalogue()["al-rnn"](latent=7, every=3, sequence=6, steps=4, batch=4),
}
"""Slug -> a function that makes an instance small enough to be fitted dozens of times; where there is none, `small` serves."""


def swings():
    """Damped swings, of which a differential equation can be read; the tiny recordings are too short for one."""
    t = 0.1 * np.arange(60)[:, None]
    phases = np.linspace(0, 3, 5)
    return from_arrays(
        [
            {STATE: (np.exp(-t / 10) * np.concatenate([np.sin(t + p), np.cos(t + p)], 1)).astype("f4")[: 60 - 4 * i]}
            for i, p in enumerate(phases)
        ],
        fps=10,
    )


RECORDINGS = {"sindy": swings}
"""Slug -> a function that makes recordings, where the tiny ones are none that the system can learn from."""


def small(kind):
    """An instance whose training is cut short, where it has steps and a batch."""
    names = {f.name for f in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in {"steps": 4, "batch": 4, "warmup": 1}.items() if name in names})


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for slug, toy in TOYS.items():
        monkeypatch.setitem(REGISTRY, slug, toy)


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    made = {}

    def of(slug):
        if slug not in made:
            system = EXAMPLES[slug]() if slug in EXAMPLES else small((TOYS | catalogue())[slug])
            given = RECORDINGS[slug]() if slug in RECORDINGS else None
            made[slug] = Subject(system, given, tmp_path_factory.mktemp(slug))
        return made[slug]

    return of


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("slug", [*TOYS, *catalogue()])
def test_every_system_keeps_the_contract(subjects, slug, name):
    subjects(slug).run(name)


@pytest.mark.parametrize("slug", [slug for slug, kind in catalogue().items() if issubclass(kind, GradientSystem)])
def test_no_setting_of_training_is_without_effect(subjects, slug):
    system = copy.copy(subjects(slug).fitted)
    before = [stage.described() for stage in system.stages(system.net_)]
    decay = "cosine" if system.decay == "linear" else "linear"
    others = {"decay": decay, "warmup": 3, "weight_decay": 0.3, "clip": 0.7, "ema": 0.6, "learning_rate": 0.07}
    if isinstance(system, RecurrentLaw):
        del others["decay"]  # says so
    for name, value in others.items():
        changed = copy.copy(system)
        setattr(changed, name, value)
        assert [stage.described() for stage in changed.stages(changed.net_)] != before, name


@pytest.mark.parametrize("slug", ["vpt", "behavior-cloning", "al-rnn"])
def test_states_of_several_sizes_are_named(slug):
    values = [{STATE: np.ones((9, n)), "action": np.ones((9, 2), np.float32)} for n in (3, 2)]
    with pytest.raises(DataError, match=r"shape \(3,\) a step in episode 0 of memory and \(2,\) in episode 1 of memory"):
        lookup(slug)().fit(from_arrays(values, fps=10))


def test_the_toys_are_no_part_of_the_catalogue():
    assert not TOYS.keys() & catalogue().keys()


def test_an_analysis_keeps_the_contract():
    assert check_system(broken(Judge, card=card("broken"))(), GOOD) == tuple(CHECKS)


def test_all_checks_are_run_on_recordings_of_ones_own():
    assert check_system(ToyInverse(), tiny_recordings(SPACES["continuous"], images=False)) == tuple(CHECKS)


# ---- every check can fail ---------------------------------------------------------------------------------------------


def broken(base=ToyInverse, **changes):
    """A toy that is changed in one way."""
    kind = type(base.__name__, (base,), {"__module__": __name__, "__annotations__": {}, **changes})
    kind = dataclasses.dataclass(kind)
    REGISTRY["broken"] = kind
    return kind


@pytest.fixture(autouse=True)
def forgotten():
    yield
    REGISTRY.pop("broken", None)


def changed(**entries):
    return Card(**{**dataclasses.asdict(card("broken")), **entries})


def greedy_fit(self, recordings, **more):
    for episode in recordings:
        _ = episode["privileged.truth"]
    return ToyInverse.fit(self, recordings, **more)


def hopeful_fit(self, recordings, **more):
    """What it does not like it leaves out, without a word."""
    return ToyInverse.fit(self, GOOD if not isinstance(recordings, type(GOOD)) or not len(recordings) else recordings, **more)


def mending_fit(self, recordings, **more):
    values = [np.nan_to_num(episode[STATE]) if STATE in episode else None for episode in recordings]
    return ToyInverse.fit(self, recordings.with_column(STATE, values), **more)


def forgetful_state(self):
    tensors, about = ToyInverse.state(self)
    return {name: value.half().float() for name, value in tensors.items()}, about


def lax_restore(self, tensors, about):
    """What is missing stays as it was drawn."""
    drawn = ToyInverse.build(self, Spec.from_json(about["spec"])).state_dict()
    ToyInverse.restore(self, {**drawn, **tensors}, about)


GOOD = tiny_recordings(SPACES["continuous"])


def rough(self, recordings):
    raise builtins.ValueError("operands could not be\nbroadcast")


def unlooked(self, window):
    from retrodict.roles import Inferred

    self.check_fitted()
    action = self.net_["head"](self.code(self.net_, window[STATE])).detach()
    return Inferred(action, torch.full(action.shape[:2], 0.5))


def over_sure(self, window):
    answer = ToyInverse.infer(self, window)
    return dataclasses.replace(answer, confidence=answer.confidence * 4)


def hasty(self, window):
    return ToyInverse.infer(self, window) if self.is_fitted else None


def restless(self, net, batch):
    return {"action": ToyInverse.loss(self, net, batch)["action"] * (1 + SYSTEM_RANDOM.random())}


SYSTEM_RANDOM = random.SystemRandom()


def seedless(self, recordings, world, validation, run):
    self.seed, seed = 0, self.seed
    ToyInverse.learn(self, recordings, world, validation, run)
    self.seed = seed


def counting(self, net, batch):
    self.losses = getattr(self, "losses", 0) + 1
    return {"action": ToyInverse.loss(self, net, batch)["action"] * self.losses}


def boastful(self, *given):
    ToyInverse.learn(self, *given)
    self.learned_from_ = (("elsewhere", 7),)


def tampering(self, *given):
    ToyInverse.learn(self, *given)
    self.width += 1


def blind(self, observation):
    self.check_fitted()
    return torch.zeros(4, self.spec_.actions.width)


def lax_admit(self, recordings):
    return recordings.visible()


@dataclasses.dataclass
class Judge(ToyInverse, Analysis):
    """A toy that also says something of recordings."""

    def analyse(self, subject):
        self.check_fitted()
        if not isinstance(subject, type(GOOD)):
            raise DataError(f"recordings are expected, got {type(subject).__name__}.")
        return Report({"steps": subject.steps}, ("They have steps.",), panels=(Panel("x", "y", {"a": (np.ones(2), np.ones(2))}),))


def indifferent(self, subject):
    return Judge.analyse(self, subject if isinstance(subject, type(GOOD)) else GOOD)


def speechless(self, subject):
    return dataclasses.replace(Judge.analyse(self, subject), findings=())


def lopsided(self, subject):
    return dataclasses.replace(Judge.analyse(self, subject), table={"a": np.ones(2), "b": np.ones(3)})


def crooked(self, subject):
    return dataclasses.replace(Judge.analyse(self, subject), panels=(Panel("x", "y", {"a": (np.ones(2), np.ones(3))}),))


BROKEN = [
    ("card_is_complete", lambda: broken(card=changed(claim="")), "says nothing under 'claim'"),
    ("card_is_complete", lambda: broken(card=changed(slug="Not A Slug")), "lower case"),
    ("hyperparameters_are_json", lambda: lambda: broken(card=card("broken"))(width=np.ones(2)), "JSON cannot"),
    ("asking_before_fit_says_so", lambda: broken(card=card("broken"), infer=hasty), "infer before fit was accepted"),
    ("asking_before_fit_says_so", lambda: broken(card=card("broken"), encode=lambda self, w: self.net_), "AttributeError"),
    ("fits_and_answers", lambda: broken(card=card("broken"), infer=over_sure), "confidences"),
    ("fits_and_answers", lambda: broken(card=card("broken"), encode=lambda self, w: torch.zeros(2)), "encode gave shape"),
    ("fits_and_answers", lambda: broken(card=card("broken"), fit=lambda self, r, **m: ToyInverse().fit(r)), "system itself"),
    ("fits_and_answers", lambda: broken(card=card("broken"), learn=tampering), "changes a hyperparameter"),
    ("fits_and_answers", lambda: broken(card=card("broken"), prepare=rough), "ValueError: operands could not be broadcast"),
    ("fits_and_answers", lambda: broken(Judge, card=card("broken"), analyse=indifferent), "accepted the number 3"),
    ("fits_and_answers", lambda: broken(Judge, card=card("broken"), analyse=speechless), "one sentence or more"),
    ("fits_and_answers", lambda: broken(Judge, card=card("broken"), analyse=lopsided), "unequal columns"),
    ("fits_and_answers", lambda: broken(Judge, card=card("broken"), analyse=crooked), "draws (3,) over (2,)"),
    ("says_which_episodes_taught_it", lambda: broken(card=card("broken"), learn=boastful), "learned_from_"),
    ("repeats_under_a_seed", lambda: broken(card=card("broken"), loss=restless), "two fits with one seed differ"),
    ("repeats_under_a_seed", lambda: broken(card=card("broken"), learn=seedless), "another seed makes no difference"),
    ("resumes_after_an_interruption", lambda: broken(card=card("broken"), loss=counting), "interrupted and resumed differs"),
    ("cannot_read_what_is_privileged", lambda: broken(card=card("broken"), fit=greedy_fit), "read a privileged"),
    ("survives_saving_and_loading", lambda: broken(card=card("broken"), state=forgetful_state), "loaded system differs in"),
    (
        "loading_refuses_what_is_damaged_and_runs_no_code",
        lambda: broken(card=card("broken"), restore=lax_restore),
        "lack a tensor was accepted",
    ),
    ("refuses_empty_recordings", lambda: broken(card=card("broken"), fit=hopeful_fit), "no episodes was accepted"),
    ("refuses_missing_features", lambda: broken(card=card("broken"), admit=lax_admit), "not in a RetrodictError"),
    ("refuses_nan", lambda: broken(card=card("broken"), fit=mending_fit), "NaN in 'observation.state' was accepted"),
    (
        "refuses_gaps_it_takes_no_notice_of",
        lambda: broken(card=card("broken"), refuse_unfit=lambda self, recordings, names: None),
        "a gap in 'observation.state' was accepted",
    ),
    (
        "refuses_actions_outside_their_range",
        lambda: broken(card=card("broken"), refuse_unfit=lambda self, recordings, names: None),
        "'stick' of an action outside its range was accepted",
    ),
    ("refuses_other_dtypes", lambda: broken(card=card("broken"), admit=lax_admit), "text in 'observation.state'"),
    ("refuses_other_dtypes", lambda: broken(ToyPolicy, card=card("broken"), admit=lax_admit), "camera frames as floats"),
    ("refuses_windows_unlike_those_it_learned_from", lambda: broken(card=card("broken"), infer=unlooked), "KeyError"),
    (
        "refuses_windows_unlike_those_it_learned_from",
        lambda: broken(ToyPolicy, card=card("broken"), act=blind, reset=lambda self, mask=None: None),
        "whatever",
    ),
]


@pytest.mark.parametrize(("name", "make", "sentence"), BROKEN)
def test_the_check_finds_what_is_broken(tmp_path, name, make, sentence):
    subject = Subject(make()(), GOOD, tmp_path)
    with pytest.raises(ContractBroken, match=f"breaks the contract in '{name}'") as raised:
        subject.run(name)
    assert sentence in str(raised.value)


def test_code_that_runs_while_loading_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(contract, "load_file", lambda path: pickle.loads(Path(path).read_bytes()))
    subject = Subject(ToyInverse(), GOOD, tmp_path)
    with pytest.raises(ContractBroken, match="ran code from the folder"):
        subject.run("loading_refuses_what_is_damaged_and_runs_no_code")


def test_every_check_was_seen_to_fail():
    assert {name for name, _, _ in BROKEN} == set(CHECKS)
