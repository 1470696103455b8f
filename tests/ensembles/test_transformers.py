"""Models of Hugging Face's `transformers`, built from a config: inputs by name with an attention mask, dropout."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.utils.data import DataLoader

from expunge.api import audit
from expunge.core import ForgetSet
from expunge.ensembles import train
from expunge.methods import FineTune, GradientAscent, unlearn
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


def careful(model, dataset, seed):
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    warm = torch.optim.lr_scheduler.LinearLR(optimiser, 0.2, total_iters=3)
    for _ in range(2):
        for inputs, targets in DataLoader(dataset, batch_size=8, shuffle=True):
            optimiser.zero_grad()
            model(**inputs, labels=targets).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            warm.step()


def test_a_transformer_with_a_loop_of_its_own_is_audited_to_a_report(tmp_path):
    task = task_of("bert", n=24, epochs=2, batch_size=8, optimizer="adamw", lr=5e-3).with_fit(careful)
    run = audit(
        task,
        forget="random:4",
        methods=[GradientAscent(lr=0.01, epochs=1), FineTune(lr=0.01, epochs=1)],
        members=20,
        forecast=False,
        out=tmp_path / "run",
    )
    assert {c.method for c in run.record.forget_sets[0].configurations} >= {"retrain", "gradient_ascent"}
    assert run.record.ensembles[0].network == "one"
    assert run.report.is_file()
