"""VQ-BeT: behaviour as a choice among learned chunks of actions, and what the chosen one needs to be put right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrodict.networks.masks import causal
from retrodict.networks.mlp import MLP
from retrodict.networks.residual_quantiser import ResidualQuantiser
from retrodict.networks.transformer import Transformer
from retrodict.objectives.focal import focal
from retrodict.objectives.masked import masked_mean
from retrodict.roles import Batch
from retrodict.systems.contract import Card, Spec, System
from retrodict.systems.drawn_chunks import DrawnChunks
from retrodict.systems.looking import CODE, code_of, codes_of, require_encoder, single, width_of, with_codes
from retrodict.systems.supervision import continuous_space, recorded_actions
from retrodict.training.optimisers import Optimiser
from retrodict.training.stage import Batches, Stage
from retrodict.trajectories import Recordings, Span, Window
from retrodict.trajectories.features import ACTION
from retrodict.trajectories.normalise import Normaliser


class ActionTokens(nn.Module):
    """Chunks of actions (..., chunk, width) in [-1, 1] as a few choices, and back."""

    def __init__(self, chunk: int, width: int, hidden: int, latent: int, codes: int, layers: int) -> None:
        super().__init__()
        self.shape = (chunk, width)
        self.encode = MLP((chunk * width, hidden, hidden, latent))
        self.quantiser = ResidualQuantiser(latent, codes, layers)
        self.decode = MLP((latent, hidden, hidden, chunk * width))

    def learn(self, chunks: Tensor, counts: Tensor) -> dict[str, Tensor]:
        """How far chunks (B, chunk, width) come back from their choices, where `counts`; in training it moves codes."""
        latent = self.encode(chunks.flatten(1))
        if self.training:
            self.quantiser.follow(latent)
        embedded = self.quantiser.embed(self.quantiser(latent))
        straight = latent + (embedded - latent).detach()  # the gradient passes the choice by
        off = (self.decode(straight).view_as(chunks) - chunks).abs()
        return {"tokens": masked_mean(off, counts), "commitment": (latent - embedded).square().mean()}

    def forward(self, chunks: Tensor) -> Tensor:
        """The choices (..., layers) of chunks (..., chunk, width)."""
        choices: Tensor = self.quantiser(self.encode(chunks.flatten(-2)))
        return choices

    def chunk_of(self, choices: Tensor) -> Tensor:
        """The chunks (..., chunk, width) that choices stand for."""
        chunks: Tensor = self.decode(self.quantiser.embed(choices)).unflatten(-1, self.shape)
        return chunks


class BehaviorNet(nn.Module):
    """Codes (B, T, d) -> at every step, logits (B, T, layers, codes) of the choices and the offset that goes with each."""

    def __init__(self, width: int, hidden: int, depth: int, heads: int, steps: int, tokens: ActionTokens) -> None:
        super().__init__()
        layers, codes, _ = tokens.quantiser.book.shape
        self.choices, self.chunk = (layers, codes), tokens.shape
        self.into, self.position = nn.Linear(width, hidden), nn.Parameter(0.02 * torch.randn(steps, hidden))
        self.trunk, self.norm = Transformer(hidden, depth, heads, init="scaled_normal"), nn.LayerNorm(hidden)
        self.choose = MLP((hidden, hidden, layers * codes))
        self.adjust = MLP((hidden, hidden, layers * codes * self.chunk[0] * self.chunk[1]))

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        x = self.into(codes) + self.position
        x = self.norm(self.trunk(x, causal(x.shape[1], device=x.device)))
        return self.choose(x).unflatten(-1, self.choices), self.adjust(x).unflatten(-1, (*self.choices, *self.chunk))

    @staticmethod
    def offset(offsets: Tensor, choices: Tensor) -> Tensor:
        """The offset (..., chunk, width) of choices (..., layers): one of every layer, added up."""
        at = choices[..., None, None, None].expand(*choices.shape, 1, *offsets.shape[-2:])
        return offsets.gather(-3, at).squeeze(-3).sum(-3)


@dataclass
class VQBeT(DrawnChunks):
    """A policy that chooses among learned chunks of actions and corrects the one chosen.  (Lee et al., 2024)

    Reads what its frozen `encoder` reads, the last `observed` steps of it; learns from `action`, of continuous parts. First a
    residual quantiser learns to say every chunk of `chunk` actions by `layers` choices among `codes`; then a causal transformer
    over codes of what was seen learns which are chosen, by a focal loss, and how far the chunk done was from the one that they
    stand for. Acting draws the choices, so that where there are several ways, one of them is taken.

    The offset is learned at the choices that were right. The official code learns it at drawn ones, which teaches an offset to
    lead from one way to another. Actions past the end of a demonstration do not count.

    Attributes:
        encoder: a fitted `Encoder` of single frames; it is not trained.
        observed, chunk, mode: what is looked at, said and played, see `DrawnChunks`.
        codes, layers: choices of a codebook, and codebooks (paper: 8 to 16, and 2).
        latent: width of a code.
        token_steps: steps in which the quantiser learns.
        hidden, depth, heads: of the transformer.
        first, rest: weights of the loss of the first choice and of the others (official code: 5, 0.5).
        w_offset: weight of the mean absolute error of offsets.
        temperature: of the draws; 0 takes the likeliest.
    """

    card: ClassVar[Card] = Card(
        slug="vq-bet",
        title="Behavior Generation with Latent Actions",
        authors="Lee, Wang, Etukuru, Kim, Shafiullah, Pinto",
        year=2024,
        url="https://arxiv.org/abs/2403.03181",
        reads="what its encoder reads; actions",
        returns="the next actions, one of the ways there are",
        claim="choosing among learned chunks of actions imitates as well as diffusion, in one pass",
        baseline=True,
    )
    gaps: ClassVar[tuple[str, ...]] = (ACTION,)

    encoder: System | None = None
    codes: int = 16
    layers: int = 2
    latent: int = 32
    token_steps: int = 500
    hidden: int = 64
    depth: int = 2
    heads: int = 4
    first: float = 5.0
    rest: float = 0.5
    w_offset: float = 10.0
    temperature: float = 1.0
    chunk: int = field(default=4, kw_only=True)
    steps: int = field(default=1000, kw_only=True)
    batch: int = field(default=64, kw_only=True)
    weight_decay: float = field(default=1e-4, kw_only=True)
    decay: Literal["constant", "linear", "cosine"] = field(default="cosine", kw_only=True)
    clip: float | None = field(default=1.0, kw_only=True)

    # ---- what is read -------------------------------------------------------------------------------------------------

    def features(self, recordings: Recordings) -> tuple[str, ...]:
        return (*self._eyes.inputs(recordings), ACTION)  # type: ignore[attr-defined]

    def window(self, spec: Spec) -> Window:
        looked = single(self._eyes)
        seen = dict.fromkeys(looked.spans, Span(self.observed - 1))
        return Window(0, 0, {**seen, ACTION: self._said}, image_size=looked.image_size)

    def reader(self, recordings: Recordings) -> Batches:
        window = Window(0, 0, {CODE: Span(self.observed - 1), ACTION: self._said})
        return with_codes(self._eyes, recordings, ACTION).windows(window, self.batch, seed=self.seed)

    @property
    def _eyes(self) -> Any:
        return require_encoder(self.encoder, self.card.slug)

    @property
    def _said(self) -> Span:
        """The chunks that follow every step that is looked at."""
        return Span(self.observed - 1, self.chunk - 1)

    # ---- how it is built and learns -----------------------------------------------------------------------------------

    def build(self, spec: Spec) -> nn.ModuleDict:
        width, codes = continuous_space(spec, self.card.slug).width, width_of(self._eyes, spec)
        tokens = ActionTokens(self.chunk, width, 2 * self.hidden, self.latent, self.codes, self.layers)
        return nn.ModuleDict(
            {
                "seen": Normaliser((codes,), name=f"{self.card.slug}: code"),
                "scale": Normaliser((width,), "range", name=f"{self.card.slug}: action"),
                "tokens": tokens,
                "behavior": BehaviorNet(codes, self.hidden, self.depth, self.heads, self.observed, tokens),
            }
        )

    def prepare(self, recordings: Recordings) -> None:
        self.forget()
        codes, _ = codes_of(self._eyes, recordings, ACTION)
        self.net_["seen"].fit(codes)
        actions = recorded_actions(recordings, continuous_space(self.spec_, self.card.slug), self.card.slug)
        self.net_["scale"].fit(actions)

    def stages(self, net: Any) -> tuple[Stage, ...]:
        rate = self.scheduled(self.learning_rate)
        tokens = Optimiser(net["tokens"], rate=self.learning_rate)
        behavior = Optimiser(net["behavior"], rate=rate, weight_decay=self.weight_decay)
        return (
            Stage(self.token_steps, self.token_loss, (tokens,), name="tokens"),
            Stage(self.steps, self.stage_loss, (behavior,), clip=self.clip, ema=self.ema, name="behavior"),
        )

    def token_loss(self, net: Any, batch: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
        """How far the chunk from the last step on comes back from its choices."""
        chunks, counts = self._chunks(net, batch)
        terms: dict[str, Tensor] = net["tokens"].learn(chunks[:, -1], counts[:, -1])
        return terms

    def loss(self, net: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        chunks, counts = self._chunks(net, batch)
        logits, offsets = net["behavior"](net["seen"](batch[CODE]))
        choices = net["tokens"](chunks)
        wrong = focal(logits, choices)  # (B, T, layers)
        weights = torch.tensor([self.first, *[self.rest] * (self.layers - 1)], device=wrong.device)
        there = counts[..., 0]  # a step before the episode says nothing
        said = net["tokens"].chunk_of(choices) + net["behavior"].offset(offsets, choices)
        return {
            "choices": masked_mean((wrong * weights).sum(-1), there),
            "offsets": self.w_offset * masked_mean((said - chunks).abs(), counts),
        }

    def _chunks(self, net: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The chunks (B, observed, chunk, width) from every step that is looked at, and which actions count."""
        actions = net["scale"](batch[ACTION].float())
        counts = batch.get(f"mask.{ACTION}", torch.ones_like(actions[..., 0], dtype=torch.bool))
        chunks = actions.unfold(1, self.chunk, 1).transpose(-1, -2)
        valid = counts.unfold(1, self.chunk, 1)
        return chunks, valid & valid[..., :1]

    # ---- how it acts --------------------------------------------------------------------------------------------------

    def glimpse(self, observation: Batch) -> Tensor:
        self.check_fitted()
        return code_of(self._eyes, observation).to(self.torch_device)

    @torch.no_grad()
    def next_chunk(self, recent: Tensor, generator: torch.Generator | None) -> Tensor:
        logits, offsets = (said[:, -1] for said in self.net_["behavior"](self.net_["seen"](recent)))
        if self.temperature:
            odds = F.softmax(logits / self.temperature, -1)
            choices = torch.multinomial(odds.flatten(0, 1), 1, generator=generator).view(logits.shape[:-1])
        else:
            choices = logits.argmax(-1)
        said = self.net_["tokens"].chunk_of(choices) + self.net_["behavior"].offset(offsets, choices)
        actions: Tensor = self.net_["scale"].inverse(said.clamp(-1, 1))
        return actions
