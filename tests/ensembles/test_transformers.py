"""Models of Hugging Face's `transformers`, built from a config: inputs by name with an attention mask, dropout."""

from __future__ import annotations

import warnings

import pytest
import torch

from expunge.core import ForgetSet
from expunge.ensembles import train
from expunge.methods import GradientAscent, unlearn
from reference.modules import HUGGING_FACE, task_of, trained_alone

pytest.importorskip("transformers")


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_a_transformer_trains_and_unlearns_as_its_plain_module(name):
    task = task_of(name, n=24, optimizer="adamw", lr=3e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert task.network.kind == "one"
        trained = train(task, members=2, seed=2)
        x = {
            key: task.validation.x[:, part] for key, part in (("input_ids", slice(4)), ("attention_mask", slice(4, 8)))
        }
        logits = trained.logits(x)
        forget = ForgetSet.of(task, [1, 5, 7], name="some", how="for a test")
        done = unlearn(trained, task, forget, GradientAscent(lr=0.05, epochs=1), seed=0)
    assert bool(done.finite().all())
    assert float((done.logits(x) - logits).abs().max()) > 1e-4
    for member in range(2):
        module = trained_alone(task, member, 2)
        for key, tensor in module.named_parameters():
            torch.testing.assert_close(trained.params[key][member], tensor.detach(), rtol=1e-6, atol=1e-8)
        with torch.no_grad():
            torch.testing.assert_close(logits[member], module(**x).logits, rtol=1e-6, atol=1e-8)
            torch.testing.assert_close(trained.module(member)(**x).logits, module(**x).logits, rtol=1e-6, atol=1e-8)
    blind = trained.logits({**x, "attention_mask": torch.ones_like(x["attention_mask"])})
    assert float((blind - logits).abs().max()) > 1e-6  # the mask is read
