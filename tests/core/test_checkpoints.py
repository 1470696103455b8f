"""Checkpoints: what others made becomes an ensemble, the same numbers come back, and what does not fit is named."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.tree import DecisionTreeClassifier
from tests.reference.problems import mlp, mlp_norm, small_task
from torch import Tensor, nn

import expunge as ex
from expunge.core import DamagedFileError, Ensemble, InputError, Task

TASK = small_task("mlp_norm")
SINGLE = small_task("mlp", precision="float32")


class Tied(nn.Module):
    """Two layers that share a weight, and a buffer that no state_dict keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6, bias=False)
        self.second = nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight
        self.head = nn.Linear(6, 3)
        self.register_buffer("scale", torch.full((6,), 0.5), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.scale * self.second(torch.tanh(self.first(x))))


def modules(task: Task, count: int = 3) -> list[nn.Module]:
    return [task.build(100 + number) for number in range(count)]


def files(task: Task, folder: Path, suffix: str = ".safetensors", count: int = 3) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = []
    for number, module in enumerate(modules(task, count)):
        path = folder / f"model-{number}{suffix}"
        state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
        paths.append(path)
    return paths


def same(a: Ensemble, b: Ensemble) -> bool:
    one, other = {**a.params, **a.buffers}, {**b.params, **b.buffers}
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", ["mlp", "mlp_norm", "resnet"])
def test_modules_become_members_with_their_own_outputs(name: str) -> None:
    task = small_task(name)
    given = modules(task)
    ensemble = Ensemble.from_modules(given, task)
    x = task.validation.x
    for module, outputs in zip(given, ensemble.logits(x), strict=True):
        torch.testing.assert_close(outputs, module.eval()(x))
    assert not same(ensemble, Ensemble.from_modules(modules(task, 4)[1:], task))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".ckpt"])
@pytest.mark.parametrize("way", ["folder", "pattern", "list"])
def test_files_are_the_modules(tmp_path: Path, suffix: str, way: str) -> None:
    paths = files(TASK, tmp_path / "oracle", suffix)
    given: Any = {"folder": tmp_path / "oracle", "pattern": str(tmp_path / "ora*" / f"*{suffix}"), "list": paths}[way]
    assert same(Ensemble.from_files(given, TASK), Ensemble.from_modules(modules(TASK), TASK))


def test_numbers_in_names_count_as_numbers(tmp_path: Path) -> None:
    files(SINGLE, tmp_path, count=11)
    ensemble = Ensemble.from_files(tmp_path, SINGLE)
    assert torch.equal(ensemble.params["0.weight"][10], modules(SINGLE, 11)[10].get_parameter("0.weight"))


def test_an_ensemble_is_saved_and_loaded(tmp_path: Path) -> None:
    trained = ex.train(TASK, members=3, seed=4, first=2)
    folder = trained.save(tmp_path / "kept")
    loaded = Ensemble.load(folder, TASK)
    assert same(trained, loaded)
    assert (loaded.ids, loaded.seed) == ((2, 3, 4), 4)
    assert loaded.provenance["specification"] == trained.provenance["specification"]
    x, y = TASK.validation.x, TASK.validation.y
    assert torch.equal(loaded.margins(x, y), trained.margins(x, y))
    # Its files are checkpoints like any others.
    assert same(trained, Ensemble.from_files(f"{folder}/*.safetensors", TASK))


def test_without_its_task_an_ensemble_has_weights_alone(tmp_path: Path) -> None:
    trained = ex.train(TASK, members=2)
    loaded = Ensemble.load(trained.save(tmp_path / "kept"))
    assert set(loaded.params) == set(trained.params)
    assert set(loaded.buffers) == set(trained.buffers)
    assert bool(loaded.finite().all())
    with pytest.raises(InputError, match="loaded without its task"):
        loaded.margins(TASK.validation.x, TASK.validation.y)


def test_a_failed_member_is_kept_as_it_is(tmp_path: Path) -> None:
    trained = ex.train(TASK, members=2)
    trained.params["0.weight"][1, 0, 0] = float("nan")
    assert Ensemble.load(trained.save(tmp_path / "kept"), TASK).finite().tolist() == [True, False]


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_an_exported_member_loads_into_its_module(tmp_path: Path, suffix: str) -> None:
    ensemble = Ensemble.from_modules(modules(TASK), TASK)
    path = ensemble.export(1, tmp_path / f"one{suffix}")
    module = TASK.build(0)
    state = load_file(path) if suffix == ".safetensors" else torch.load(path, weights_only=True)
    module.load_state_dict(state, strict=True)
    assert all(torch.equal(p, ensemble.params[name][1]) for name, p in module.named_parameters())


def test_shared_weights_and_buffers_that_are_not_kept(tmp_path: Path) -> None:
    task = small_task(model=Tied)
    ensemble = Ensemble.from_modules(modules(task), task)
    path = ensemble.export(0, tmp_path / "tied.safetensors")
    state = load_file(path)
    assert set(state) == {"first.weight", "second.weight", "head.weight", "head.bias"}
    again = Ensemble.from_files([path], task)
    assert same(again, ensemble[:1])
    # Other libraries write a shared tensor once, under any of its names.
    save_file({name: tensor for name, tensor in state.items() if name != "first.weight"}, path)
    assert same(Ensemble.from_files([path], task), again)
    save_file({**state, "second.weight": state["second.weight"] + 1}, path)
    with pytest.raises(InputError, match=r"'first.weight' and 'second.weight' of .* differ"):
        Ensemble.from_files([path], task)
    assert same(Ensemble.load(ensemble.save(tmp_path / "kept"), task), ensemble)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_names_of_wrappers_are_dropped(tmp_path: Path, prefix: str) -> None:
    torch.save({prefix + name: t for name, t in TASK.build(100).state_dict().items()}, tmp_path / "wrapped.pt")
    assert same(Ensemble.from_files(tmp_path, TASK), Ensemble.from_modules(modules(TASK, 1), TASK))


def test_a_wrapped_module_is_its_module() -> None:
    wrapped = nn.DataParallel(TASK.build(100))
    assert same(Ensemble.from_modules([wrapped], TASK), Ensemble.from_modules(modules(TASK, 1), TASK))


@pytest.mark.parametrize("name", ["state_dict", "model_state_dict", "model", "weights of mine"])
def test_a_state_inside_a_training_checkpoint(tmp_path: Path, name: str) -> None:
    module = TASK.build(100)
    optimizer = torch.optim.AdamW(module.parameters())
    torch.save(
        {"epoch": 3, "loss": 0.5, name: module.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "c.pt"
    )
    assert same(Ensemble.from_files(tmp_path, TASK), Ensemble.from_modules(modules(TASK, 1), TASK))


def test_types_are_converted_where_nothing_is_lost(tmp_path: Path) -> None:
    halves = [module.to(torch.bfloat16) for module in modules(SINGLE)]
    for number, module in enumerate(halves):
        save_file(module.state_dict(), tmp_path / f"{number}.safetensors")
    ensemble = Ensemble.from_files(tmp_path, SINGLE)
    assert all(tensor.dtype == torch.float32 for tensor in ensemble.params.values())
    assert torch.equal(ensemble.params["0.weight"][2], halves[2].get_parameter("0.weight").float())


class Planted:
    """A pickle that would write a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def _pickled_module(path: Path) -> None:
    torch.save(mlp(), path)


def _plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(mlp().state_dict()))


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "another architecture": (
        "a.pt",
        lambda path: torch.save(mlp_norm().state_dict(), path),
        r"a.pt does not fit the model of task 'small-mlp': it lacks '0.bias', '2.weight', '2.bias' and has "
        r"'1.weight', '1.bias', '1.running_mean' and 4 more besides; expected the state_dict of its Sequential",
    ),
    "missing keys": (
        "a.safetensors",
        lambda path: save_file({"0.weight": torch.zeros(8, 6), "0.bias": torch.zeros(8)}, path),
        r"a.safetensors does not fit .* it lacks '2.weight', '2.bias'; expected",
    ),
    "extra keys": (
        "a.pt",
        lambda path: torch.save({**mlp().state_dict(), "ema": torch.zeros(1)}, path),
        r"it has 'ema' besides; expected",
    ),
    "another shape": (
        "a.pt",
        lambda path: torch.save({**mlp().state_dict(), "2.weight": torch.zeros(4, 8)}, path),
        r"'2.weight' of .*a.pt has shape \(4, 8\), expected \(3, 8\)",
    ),
    "more digits than the model has": (
        "a.pt",
        lambda path: torch.save(mlp().double().apply(_thirds).state_dict(), path),
        r"'0.weight' of .*a.pt is torch.float64, which torch.float32 .* exactly; give the task Recipe\(precision=",
    ),
    "not finite": (
        "a.pt",
        lambda path: torch.save({**mlp().state_dict(), "2.bias": torch.tensor([0.0, float("inf"), 0.0])}, path),
        r"'2.bias' of .*a.pt is not finite; leave this model out",
    ),
    "a whole module": ("a.pt", _pickled_module, r"a.pt holds pickled Python objects .*never loaded; write torch.save"),
    "a plain pickle": ("a.pt", _plain_pickle, r"a.pt (holds pickled|is not a file of torch.save)"),
    "an object that runs code": (
        "a.pt",
        lambda path: torch.save({"state_dict": Planted(path.with_name("planted"))}, path),
        r"a.pt holds pickled Python objects",
    ),
    "no state": ("a.pt", lambda path: torch.save({"epoch": 3}, path), r"a.pt holds a mapping with 'epoch', expected"),
    "a tensor": (
        "a.pt",
        lambda path: torch.save(torch.zeros(3), path),
        r"a.pt holds a Tensor, expected the state_dict",
    ),
    "noise": ("a.pt", lambda path: path.write_bytes(bytes(range(256))), r"a.pt "),
    "an empty file": ("a.pt", lambda path: path.write_bytes(b""), r"a.pt is not a file of torch.save, or damaged"),
    "a cut file": ("a.pt", lambda path: _cut(path), r"a.pt is not a file of torch.save, or damaged"),
    "no safetensors": (
        "a.safetensors",
        lambda path: path.write_bytes(b"hello"),
        r"a.safetensors is not a safetensors file, or damaged",
    ),
    "another suffix": ("a.txt", lambda path: path.write_text("1"), r"a.txt is no checkpoint by its name"),
}


def _thirds(layer: nn.Module) -> None:
    for parameter in layer.parameters(recurse=False):
        nn.init.constant_(parameter, 1 / 3)


def _cut(path: Path) -> None:
    torch.save(mlp().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize("what", list(BAD))
def test_a_file_that_does_not_fit_is_named(tmp_path: Path, what: str) -> None:
    name, write, message = BAD[what]
    write(tmp_path / name)
    with pytest.raises(InputError, match=message):
        Ensemble.from_files([tmp_path / name], SINGLE)
    assert not (tmp_path / "planted").exists()


def test_copies_are_named(tmp_path: Path) -> None:
    first, second, third = files(SINGLE, tmp_path)
    second.write_bytes(first.read_bytes())
    with pytest.raises(InputError, match=r"model-0.safetensors and .*model-1.safetensors hold the same weights"):
        Ensemble.from_files(tmp_path, SINGLE)
    with pytest.raises(InputError, match="hold the same weights"):
        Ensemble.from_files([third, third], SINGLE)
    one = SINGLE.build(1)
    with pytest.raises(InputError, match=r"modules\[0\] and modules\[2\] hold the same weights"):
        Ensemble.from_modules([one, SINGLE.build(2), one], SINGLE)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for given, message in [
        (tmp_path, "no file matches"),
        (str(tmp_path / "*.pt"), "no file matches"),
        ([], "no file matches"),
        ([tmp_path / "gone.pt"], "gone.pt is not there"),
        (3, "files is an int, expected a folder"),
        ([1], "files is a list, expected a folder"),
    ]:
        with pytest.raises(InputError, match=message):
            Ensemble.from_files(given, SINGLE)


def _sparse() -> nn.Module:
    made = mlp()
    made[0].weight = nn.Parameter(made[0].weight.detach().to_sparse())
    return made


def test_modules_that_are_others() -> None:
    for given, message in [
        ([], "modules is empty"),
        ([np.zeros(3)], r"modules\[0\] is a ndarray, expected a trained torch.nn.Module"),
        ([mlp_norm()], r"modules\[0\] does not fit the model of task"),
        ([mlp().to("meta")], r"'0.weight' of modules\[0\] is a meta tensor, without numbers"),
        ([_sparse()], r"'0.weight' of modules\[0\] is a sparse tensor"),
        ([nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))], r"modules\[0\] has .* but other outputs"),
    ]:
        with pytest.raises(InputError, match=message):
            Ensemble.from_modules(given, SINGLE)


@pytest.mark.parametrize("buffer", [True, False])
def test_random_numbers_that_no_file_keeps(tmp_path: Path, buffer: bool) -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 3)
            if buffer:
                self.register_buffer("noise", torch.randn(6), persistent=False)
            else:
                self.noise = torch.randn(6)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x + self.noise)

    task = small_task(model=Noisy, precision="float32")
    ensemble = Ensemble.from_modules([task.build(1), task.build(2)], task)
    x = task.validation.x
    torch.testing.assert_close(ensemble.logits(x)[1], task.build(2)(x))
    assert same(Ensemble.load(ensemble.save(tmp_path / "kept"), task), ensemble)
    torch.save(task.build(1).state_dict(), tmp_path / "one.pt")
    with pytest.raises(InputError, match=r"'noise' of the model is random .*one.pt lacks it.* persistent=True"):
        Ensemble.from_files([tmp_path / "one.pt"], task)


def test_damage_in_a_saved_folder_is_named(tmp_path: Path) -> None:
    folder = Ensemble.from_modules(modules(TASK), TASK).save(tmp_path / "kept")
    with pytest.raises(InputError, match="is there already"):
        ex.train(TASK, members=1).save(folder)
    with pytest.raises(InputError, match="does not fit the model of task 'small-mlp'"):
        Ensemble.load(folder, SINGLE)
    with pytest.raises(InputError, match="holds no saved ensemble"):
        Ensemble.load(tmp_path, TASK)
    file = folder / "member-00001.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(DamagedFileError, match=r"member-00001.safetensors is altered"):
        Ensemble.load(folder, TASK)
    file.unlink()
    with pytest.raises(DamagedFileError, match=r"member-00001.safetensors is missing"):
        Ensemble.load(folder)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(DamagedFileError, match=r"manifest.json is damaged"):
        Ensemble.load(folder, TASK)


def test_export_refuses_what_cannot_be(tmp_path: Path) -> None:
    ensemble = Ensemble.from_modules(modules(TASK), TASK)
    with pytest.raises(InputError, match="member = 3, expected a position from 0 to 2"):
        ensemble.export(3, tmp_path / "a.pt")
    with pytest.raises(InputError, match="expected the name of a file that ends in"):
        ensemble.export(0, tmp_path / "a.onnx")


def test_models_of_outputs_alone_are_kept_too(tmp_path: Path) -> None:
    x, y = TASK.train.x.numpy(), TASK.train.y.numpy()
    v = (TASK.validation.x.numpy(), TASK.validation.y.numpy())
    task = ex.tasks.from_estimator(DecisionTreeClassifier(max_depth=3), x, y, validation=v, bootstrap=True)
    trained = ex.train(task, members=3)
    loaded = Ensemble.load(trained.save(tmp_path / "kept"), task)
    assert torch.equal(loaded.margins(*v), trained.margins(*v))
    assert same(Ensemble.from_files(tmp_path / "kept", task), trained)
    save_file({"train": trained.params["train"][0].contiguous()}, tmp_path / "half.safetensors")
    with pytest.raises(InputError, match="it lacks 'validation'; expected outputs as train and validation"):
        Ensemble.from_files([tmp_path / "half.safetensors"], task)
