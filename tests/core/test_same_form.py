"""Other weights in the form in which weights came: files and modules, wrappers, types, shared tensors."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tests.reference.problems import small_task
from torch import nn

from expunge.core import DivergedError, Task
from expunge.core.checkpoints import Architecture, read_state
from expunge.core.same_form import Stored, like_module

TASK = small_task("mlp_norm", precision="float32")
LIKE = Architecture.of(TASK)


class Tied(nn.Module):
    """Two layers that share one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))))


def other(task: Task = TASK) -> dict[str, torch.Tensor]:
    """Return the tensors of another model by the architecture's names."""
    module = task.build(9)
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def test_a_safetensors_file_keeps_its_metadata_types_and_prefix(tmp_path: Path) -> None:
    state = {f"module.{name}": tensor.clone() for name, tensor in TASK.build(1).state_dict().items()}
    state["module.0.weight"] = state["module.0.weight"].half()
    save_file(state, tmp_path / "a.safetensors", metadata={"format": "pt", "by": "me"})
    stored = Stored.read(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(stored.with_weights(other(), LIKE))
    made = read_state(tmp_path / "b.safetensors")
    assert {name: tensor.dtype for name, tensor in made.items()} == {name: t.dtype for name, t in state.items()}
    assert all(torch.equal(made[f"module.{name}"], t.to(made[f"module.{name}"].dtype)) for name, t in other().items())
    with safe_open(tmp_path / "b.safetensors", framework="pt") as opened:
        assert opened.metadata() == {"format": "pt", "by": "me"}


def test_a_training_checkpoint_keeps_plain_values_and_loses_what_was_computed_from_the_rows(tmp_path: Path) -> None:
    module = TASK.build(1)
    steps = torch.optim.Adam(module.parameters())
    module(torch.zeros(4, 6)).sum().backward()
    steps.step()
    twice = {"model": module.state_dict(), "ema": module.state_dict(), "optimizer": steps.state_dict()}
    torch.save({"epoch": 3, **twice, "names": ["a", "b"]}, tmp_path / "a.pt")
    stored = Stored.read(tmp_path / "a.pt")
    assert stored.left_out == ["ema", "optimizer"]
    (tmp_path / "b.pt").write_bytes(stored.with_weights(other(), LIKE))
    made = torch.load(tmp_path / "b.pt", weights_only=True)
    assert list(made) == ["epoch", "model", "names"]
    assert (made["epoch"], made["names"]) == (3, ["a", "b"])
    assert isinstance(made["model"], OrderedDict)
    assert made["model"]._metadata == module.state_dict()._metadata
    fresh = TASK.build(2)
    fresh.load_state_dict(made["model"])
    assert all(torch.equal(dict(fresh.named_parameters())[name], p) for name, p in TASK.build(9).named_parameters())


def test_shared_tensors_stay_shared(tmp_path: Path) -> None:
    task = small_task("mlp", model=Tied, precision="float32")
    like, module = Architecture.of(task), task.build(1)
    torch.save(module.state_dict(), tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(Stored.read(tmp_path / "a.pt").with_weights(other(task), like))
    made = torch.load(tmp_path / "b.pt", weights_only=True)
    assert made["first.weight"].data_ptr() == made["second.weight"].data_ptr()
    assert list(made) == list(module.state_dict())
    filled = like_module(module, other(task), like)
    assert isinstance(filled, Tied)
    assert filled.second.weight is filled.first.weight
    assert torch.equal(filled.first.weight, task.build(9).first.weight)


def test_a_module_keeps_its_class_wrapper_types_and_modes() -> None:
    wrapped = nn.DataParallel(TASK.build(1).half())
    wrapped.module[1].eval()
    made = like_module(wrapped, other(), LIKE)
    assert type(made) is nn.DataParallel
    assert made.training
    assert not made.module[1].training
    assert {p.dtype for p in made.parameters()} == {torch.float16}
    assert torch.equal(made.module[0].weight, other()["0.weight"].half())


def test_numbers_that_the_type_cannot_hold_are_refused(tmp_path: Path) -> None:
    torch.save(TASK.build(1).half().state_dict(), tmp_path / "a.pt")
    large = other()
    large["0.weight"] = torch.full_like(large["0.weight"], 1e6)
    with pytest.raises(DivergedError, match=r"not finite in torch\.float16"):
        Stored.read(tmp_path / "a.pt").with_weights(large, LIKE)
