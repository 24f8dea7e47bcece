"""One-step games in which an action moves a hidden state linearly: what is seen is not it, and what comes of it is confounded.

Z = M0 A + V, an observation X = g(Z), an outcome Y = l(Z) + U with U depending on V. Besides recordings, a game gives the truth:
E[Y | do(A = a)] for any action, tried or not. (Saengkyongam et al., 2024.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories import ActionSpace, Box, Recordings, from_samples
from retrodict.worlds.rendering import offscreen


class InterventionGame(ABC):
    """A game that records independent trials at random actions in [-1, 1]^k.

    Recordings hold `action` (k,), `observation.*`, `label.outcome` (1,) and the hidden state in `privileged.latent` (d,).
    """

    actions: int
    confounded: bool
    noise: float

    def record(self, trials: int, seed: int) -> Recordings:
        """Trials at actions drawn evenly from the box."""
        rng = np.random.default_rng(seed)
        action = rng.uniform(-1, 1, (trials, self.actions))
        latent, cause = self.act(action, rng)
        outcome = self.outcome(latent) + self.disturbance(cause, rng)
        made = from_samples(
            source=f"{type(self).__name__.lower()} {seed}",
            action=action.astype(np.float32),
            label__outcome=outcome[:, None].astype(np.float32),
            privileged__latent=latent.astype(np.float32),
            **self.observe(latent),
        )
        names = tuple(f"push {i}" for i in range(self.actions))
        return replace(made, actions=ActionSpace({"push": Box(names, -1.0, 1.0)}, mode="absolute", leads=False))

    def effect(self, actions: np.ndarray, draws: int = 2000, seed: int = 0) -> np.ndarray:
        """E[Y | do(A = a)] (m,) of `actions` (m, k): the mean over trials that are played, of the same causes for each."""
        found = []
        for action in actions:
            latent, _ = self.act(np.repeat(action[None], draws, 0), np.random.default_rng(seed))
            found.append(self.outcome(latent).mean())  # the disturbance has mean 0 whatever is done
        return np.array(found)

    @abstractmethod
    def act(self, actions: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Hidden states Z (n, d) and their causes V (n, d) after actions (n, k)."""

    @abstractmethod
    def observe(self, latent: np.ndarray) -> dict[str, np.ndarray]:
        """The features seen, with dots as double underscores."""

    @abstractmethod
    def outcome(self, latent: np.ndarray) -> np.ndarray:
        """What comes of a hidden state, (n,), without the disturbance."""

    def disturbance(self, cause: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """U (n,), of mean 0: by what moves the hidden state, or by something else of its size where nothing is confounded."""
        if not self.confounded:
            cause = rng.normal(size=cause.shape) * self.noise
        return np.asarray(cause[:, 0] - cause[:, 1] + 0.1 * rng.normal(size=len(cause)))


class SwirledMixing(InterventionGame):
    """A hidden plane (or space) seen through a swirl and a random network of leaky rectifiers.

    Args:
        seed: of M0 and the network.
        actions: dimensions of action and hidden state, 2 or 4.
        strength: how strongly actions act; at 0 nothing can be identified.
        swirl: turn of the hidden state per unit of its norm, in radians, which no linear map undoes; 0 for none.
        confounded: whether the disturbance of the outcome depends on what moves the hidden state.
        noise: standard deviation of V.
    """

    WIDTH = 10

    def __init__(
        self,
        seed: int,
        actions: int = 2,
        *,
        strength: float = 1.0,
        swirl: float = 0.5,
        confounded: bool = True,
        noise: float = 0.4,
    ) -> None:
        if actions % 2:
            raise DataError(f"a swirl turns planes; an even number of actions is expected, got {actions}.")
        self.actions, self.swirl, self.confounded, self.noise = actions, swirl, confounded, noise
        rng = np.random.default_rng(seed)
        turn, _ = np.linalg.qr(rng.normal(size=(actions, actions)))
        self.effect_of_action = strength * turn * rng.uniform(0.8, 1.2, actions)
        self.layers = []
        for inputs in (actions, self.WIDTH, self.WIDTH):
            turn, _ = np.linalg.qr(rng.normal(size=(self.WIDTH, self.WIDTH)))
            self.layers.append((turn[:, :inputs] * rng.uniform(0.7, 1.3, (self.WIDTH, 1)), rng.normal(size=self.WIDTH) / 10))

    def act(self, actions: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        cause = rng.normal(size=actions.shape) * self.noise
        return actions @ self.effect_of_action.T + cause, cause

    def observe(self, latent: np.ndarray) -> dict[str, np.ndarray]:
        turn = self.swirl * np.linalg.norm(latent, axis=1)
        hidden = np.empty_like(latent)
        for i in range(0, latent.shape[1], 2):
            x, y = latent[:, i], latent[:, i + 1]
            hidden[:, i], hidden[:, i + 1] = np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y
        for depth, (weight, bias) in enumerate(self.layers):
            hidden = hidden @ weight.T + bias
            if depth + 1 < len(self.layers):
                hidden = np.where(hidden > 0, hidden, 0.3 * hidden)
        return {"observation__state": hidden.astype(np.float32)}

    def outcome(self, latent: np.ndarray) -> np.ndarray:
        x, y = latent[:, 0], latent[:, 1]
        return np.asarray(2 * np.sin(1.2 * x) + 0.5 * y**2 + x * y)


class PushedMass(InterventionGame):
    """A mass on a frictionless table, simulated by MuJoCo: a push held for ten steps from a random speed, then a picture.

    Two pushers act along directions of their own. The state is the place (2,) in units of about the displacement by a full push;
    the speed at the start moves the mass and, where `confounded`, adds to the outcome too. Pictures are
    `observation.images.table` (size, size, 1): the mass as a soft blob, so that every place looks different.

    Args:
        seed: of the directions of the pushers.
        size: side of the picture in pixels.
        confounded: whether the outcome depends on the starting speed too.
        noise: standard deviation of the displacement by the starting speed.
    """

    STEPS, TIMESTEP, VIEW, BLOB = 10, 0.05, 3.0, 1.0

    def __init__(self, seed: int, size: int = 16, *, confounded: bool = True, noise: float = 0.4) -> None:
        self.mujoco: Any = offscreen()
        self.actions, self.size, self.confounded, self.noise = 2, size, confounded, noise
        rng = np.random.default_rng(seed)
        turn, _ = np.linalg.qr(rng.normal(size=(2, 2)))
        seconds = self.STEPS * self.TIMESTEP
        # Semi-implicit Euler moves a mass of 1 by f dt^2 n (n + 1) / 2 in n steps from rest; a full push moves it by about 1.
        gear = turn * rng.uniform(0.8, 1.2, 2) / (self.TIMESTEP**2 * self.STEPS * (self.STEPS + 1) / 2)
        self.speed = noise / seconds
        self.model = self.mujoco.MjModel.from_xml_string(SCENE.format(dt=self.TIMESTEP, g=gear))

    def act(self, actions: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        from mujoco import rollout

        cause = rng.normal(size=actions.shape)
        start = np.zeros((len(actions), 1 + self.model.nq + self.model.nv))  # time, place, speed
        start[:, 1 + self.model.nq :] = cause * self.speed
        control = np.repeat(actions[:, None].astype(np.float64), self.STEPS, 1)
        states, _ = rollout.rollout(self.model, self.mujoco.MjData(self.model), start, control)
        return states[:, -1, 1 : 1 + self.model.nq], cause * self.noise

    def observe(self, latent: np.ndarray) -> dict[str, np.ndarray]:
        pixels = np.linspace(-self.VIEW, self.VIEW, self.size)
        across, down = (np.exp(-((pixels - latent[:, i, None]) ** 2) / (2 * self.BLOB**2)) for i in (0, 1))
        picture = 255 * down[:, :, None] * across[:, None, :]
        return {"observation__images__table": picture.round().astype(np.uint8)[..., None]}

    def outcome(self, latent: np.ndarray) -> np.ndarray:
        x, y = latent[:, 0], latent[:, 1]
        return np.asarray(1.5 * np.sin(1.5 * x) + np.cos(1.2 * y + 0.5) + 0.6 * x * y)


SCENE = """
<mujoco>
  <option timestep="{dt}" gravity="0 0 0" integrator="Euler"/>
  <worldbody>
    <body>
      <joint name="x" type="slide" axis="1 0 0"/>
      <joint name="y" type="slide" axis="0 1 0"/>
      <geom type="sphere" size="0.1" mass="1" contype="0" conaffinity="0"/>
    </body>
  </worldbody>
  <tendon>
    <fixed name="first"><joint joint="x" coef="{g[0][0]}"/><joint joint="y" coef="{g[1][0]}"/></fixed>
    <fixed name="second"><joint joint="x" coef="{g[0][1]}"/><joint joint="y" coef="{g[1][1]}"/></fixed>
  </tendon>
  <actuator>
    <motor tendon="first"/>
    <motor tendon="second"/>
  </actuator>
</mujoco>
"""
