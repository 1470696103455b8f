"""Kinds of modules that people train, small: for each a factory and inputs."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from expunge.core import Recipe, Task
from expunge.core.seeds import derive, generator
from expunge.ensembles.skeleton import following, own_dropout
from reference.one_by_one import member_seed, optimiser_of

FEATURES, LENGTH, WORDS = 6, 4, 9


class Recurrent(nn.Module):
    def __init__(self, kind: type, **options: Any) -> None:
        super().__init__()
        self.reader = kind(FEATURES, 5, batch_first=True, **options)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.reader(x)[0][:, -1])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(FEATURES, 2, dropout=0.3, batch_first=True)
        self.head = nn.Linear(FEATURES, 3)

    def forward(self, x):
        return self.head(x + self.attention(x, x, x)[0]).mean(1)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(FEATURES, 2, 8, dropout=0.2, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(FEATURES, 3)

    def forward(self, x):
        return self.head(self.encoder(x).mean(1))


class Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.drop = nn.Embedding(WORDS, 5, padding_idx=0), nn.Dropout(0.2)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.drop(self.words(x)).mean(1))


class Masked(nn.Module):
    """Inputs by name, an object with logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(WORDS, 5), nn.Linear(5, 3)

    def forward(self, input_ids, attention_mask):
        weigh = attention_mask.unsqueeze(-1).to(self.words.weight.dtype)
        pooled = (self.words(input_ids) * weigh).sum(1) / weigh.sum(1).clamp_min(1)
        return SimpleNamespace(logits=self.head(torch.tanh(pooled)), hidden=pooled)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.head(torch.tanh(self.second(torch.relu(self.first(x)))))


class Average(nn.Module):
    """A buffer that is replaced, and one that is changed in place, in training."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.register_buffer("centre", torch.zeros(6))
        self.register_buffer("seen", torch.tensor(0))

    def forward(self, x):
        if self.training:
            self.seen += 1
            self.centre = 0.9 * self.centre + 0.1 * x.detach().mean(0)
        return self.head(x - self.centre)


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.other = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(x) if x.mean() > 0 else self.head(x) + self.other(x)


class Noisy(nn.Module):
    """Noise by functional dropout, NumPy and Python's own generator."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.drop, self.head = nn.Linear(6, 8), nn.Dropout(0.3), nn.Linear(8, 3)

    def forward(self, x):
        x = self.drop(F.dropout(torch.relu(self.body(x)), 0.4, self.training))
        if self.training:
            x = x * random.choice([0.5, 1.0]) + np.random.normal()  # noqa: NPY002
        return self.head(x)


class HeldNorm(nn.Module):
    """A batch norm that stays in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)
        nn.init.normal_(self.norm.running_mean)

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.body(x))))


class Unregistered(nn.Module):
    """A layer in a plain list, a random tensor, array and number as plain attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(6, 6)]
        self.directions = torch.randn(6, 8).double()
        self.shift, self.scale = np.random.normal(size=8), random.random()  # noqa: NPY002
        self.layers[0].double()
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = torch.cos(self.layers[0](x) @ self.directions + torch.from_numpy(self.shift)) * math.sqrt(self.scale)
        return self.head(x)


class UnderNoGrad(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        with torch.no_grad():
            x = torch.relu(self.base(x))
        return self.head(x)


def sequential(*makers: Any) -> nn.Module:
    return nn.Sequential(*(make() for make in makers))


def with_hook() -> nn.Module:
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    mask = (torch.arange(48).view(8, 6) % 2).double()
    net[0].weight.register_hook(lambda gradient: gradient * mask)
    return net


def chain(first: nn.Module) -> nn.Module:
    return nn.Sequential(first, nn.ReLU(), nn.Linear(8, 3))


def rows(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, FEATURES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sequences(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, LENGTH, FEATURES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def words(n: int, seed: int) -> torch.Tensor:
    return torch.randint(0, WORDS, (n, LENGTH), generator=torch.Generator().manual_seed(seed))


def named(n: int, seed: int) -> dict[str, torch.Tensor]:
    ids = words(n, seed)
    return {"input_ids": ids, "attention_mask": (ids > 2).long()}


@dataclass(frozen=True)
class Kind:
    """A kind of module."""

    says: str
    model: Any
    form: str
    """The form of a stack that is expected of it."""
    inputs: Any = rows


KINDS = {
    "mlp": Kind(
        "linear layers, activations, dropout",
        lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)),
        "layers",
    ),
    "layer-norm": Kind(
        "layer norm, own operations", lambda: nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 3)), "vmap"
    ),
    "lstm": Kind(
        "LSTM, two layers with dropout", lambda: Recurrent(nn.LSTM, num_layers=2, dropout=0.3), "one", sequences
    ),
    "gru": Kind("GRU", lambda: Recurrent(nn.GRU), "one", sequences),
    "attention": Kind("`nn.MultiheadAttention` with dropout", Attention, "one", sequences),
    "encoder": Kind("`nn.TransformerEncoder` with dropout", Encoder, "one", sequences),
    "embedding": Kind("embedding with a padding row, dropout", Bag, "one", words),
    "named": Kind("inputs by name with an attention mask, an object with `logits` out", Masked, "vmap", named),
    "spectral-norm": Kind("spectral norm", lambda: chain(parametrizations.spectral_norm(nn.Linear(6, 8))), "one"),
    "weight-norm": Kind("weight norm", lambda: chain(parametrizations.weight_norm(nn.Linear(6, 8))), "one"),
    "pruned": Kind(
        "`torch.nn.utils.prune`", lambda: chain(prune.l1_unstructured(nn.Linear(6, 8), "weight", amount=0.5)), "vmap"
    ),
    "tied": Kind("tied weights", Tied, "vmap"),
    "buffers": Kind("buffers that change in training", Average, "vmap"),
    "branch": Kind("a branch on the data", Branch, "one"),
    "hook": Kind("a hook on a gradient", with_hook, "one"),
    "noise": Kind("noise from functional dropout, NumPy, `random`", Noisy, "one"),
    "held-norm": Kind("a batch norm held in evaluation mode", HeldNorm, "vmap"),
    "unregistered": Kind("random tensors, arrays and layers that are not registered", Unregistered, "one"),
    "no-grad": Kind("a base under `torch.no_grad()`", UnderNoGrad, "vmap"),
}


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    return BertForSequenceClassification(BertConfig(vocab_size=WORDS, max_position_embeddings=8, num_labels=3, **sizes))


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 8}
    ends = {"bos_token_id": None, "eos_token_id": None}
    return GPT2ForSequenceClassification(GPT2Config(vocab_size=WORDS, num_labels=3, pad_token_id=0, **sizes, **ends))


HUGGING_FACE = {
    "bert": Kind("`BertForSequenceClassification`, built from a config", bert, "one", named),
    "gpt2": Kind("`GPT2ForSequenceClassification`, built from a config", gpt2, "one", named),
}
"""Apart from the others, since importing `transformers` takes seconds."""


def task_of(name: str, n: int = 40, model: Any = None, **recipe: Any) -> Task:
    """A task of three classes on which a kind of module trains."""
    kind = {**KINDS, **HUGGING_FACE}[name]
    labels = torch.randint(0, 3, (n + 12,), generator=torch.Generator().manual_seed(5))
    options = {"epochs": 2, "batch_size": 8, "lr": 0.1, "peak_epoch": 1.0, "precision": "float64", **recipe}
    return Task(
        name=name,
        train=(kind.inputs(n, 1), labels[:n]),
        validation=(kind.inputs(12, 2), labels[n:]),
        model=model or kind.model,
        recipe=Recipe(**options),
        classes=3,
    )


def trained_alone(task: Task, member: int, seed: int) -> nn.Module:
    """A plain module in a plain loop; its noise is drawn from the member's own generators."""
    recipe, x, y = task.recipe, task.train.x, task.train.y
    own = member_seed(seed, np.arange(len(y)), member)
    module = task.build(derive(own, "initialisation"))
    dropouts, draws = own_dropout(module), getattr(getattr(task.network, "traits", None), "draws", frozenset())
    optimiser = optimiser_of(module, recipe)
    for epoch in range(recipe.epochs):
        noise = generator(own, "noise", epoch)
        parts = torch.randperm(len(y), generator=generator(own, "order", epoch)).split(recipe.batch_size)
        for number, part in enumerate(parts):
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate(epoch + (number + 0.5) / len(parts))
            module.train()
            optimiser.zero_grad()
            with following(noise, draws, x.device):
                for dropout in dropouts:
                    dropout.generator = torch.default_generator if draws else noise
                out = task.interface.run(module, x[part])
            nn.functional.cross_entropy(out, y[part]).backward()
            optimiser.step()
    return module.eval()
