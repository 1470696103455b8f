"""One checkpoint in, one checkpoint out: its form, its seeds, its record, and what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

import expunge as ex
from expunge.core import DivergedError, InputError, Task
from expunge.core.checkpoints import read_state
from expunge.core.unlearning import Unlearning
from expunge.methods import DoNothing, EarlyStoppedRetrain, FineTune, GradientAscent, Method, Retrain, from_function
from reference.problems import forget_set, small_task

TASK = small_task("mlp_norm", precision="float32")
FORGET = forget_set(TASK)
TRAINED = ex.train(TASK, members=3, seed=3)


def ascend(model, retain_loader, forget_loader, validation_loader):
    """A method of one's own that changes the model in place."""
    for x, y in forget_loader:
        nn.functional.cross_entropy(model(x), y).backward()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * weight.grad


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return TRAINED.export(0, tmp_path_factory.mktemp("models") / "model.safetensors")


def wide_enough(text: str) -> bool:
    return all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize(
    "method",
    [Retrain(), GradientAscent(lr=0.05, epochs=2), FineTune(lr=0.01, statistics="updated"), from_function(ascend)],
    ids=lambda method: method.name,
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_it_is_what_member_0_of_an_ensemble_becomes(tmp_path: Path, method: Method, suffix: str) -> None:
    came = TRAINED.export(0, tmp_path / f"deployed{suffix}")
    content = came.read_bytes()
    done = ex.unlearn_checkpoint(came, TASK, FORGET, method, out=tmp_path / "out", seed=5, device="cpu")
    assert came.read_bytes() == content
    assert done.model == tmp_path / "out" / f"deployed{suffix}"
    together = ex.unlearn(TRAINED, TASK, FORGET, method, seed=5).module(0).state_dict()
    alone, before = read_state(done.model), read_state(came)
    assert list(alone) == list(before)
    for name, tensor in alone.items():
        assert tensor.dtype == before[name].dtype
        torch.testing.assert_close(tensor, together[name], rtol=1e-4, atol=1e-5)
    record = Unlearning.load(tmp_path / "out")
    assert record == done.record
    assert (record.status, record.method, record.forget.size) == ("complete", method.name, 7)
    assert not record.failed_checks
    assert record.after is not None
    assert record.after.weights != record.before.weights
    assert all(0 <= each.changed <= 1 for each in record.changes)
    x, y = TASK.train[torch.from_numpy(FORGET.indices)].x, TASK.train.y[FORGET.indices]
    now = ex.Ensemble.from_files([done.model], TASK)
    assert record.splits["forget"].utility[1] == pytest.approx(float(now.accuracy(x, y)))
    assert record.splits["forget"].statistic[1] == pytest.approx(float(now.margins(x, y).double().mean()), rel=1e-5)
    assert wide_enough(str(done))
    assert "certain" in " ".join(record.advice)
    assert record.not_shown


def test_a_member_is_itself_alone_and_in_a_stack() -> None:
    task = small_task("mlp_norm")  # float64
    forget, stack = forget_set(task), ex.train(small_task("mlp_norm"), members=3, seed=1)
    for method in (GradientAscent(lr=0.05, epochs=2), Retrain()):
        together = ex.unlearn(stack, task, forget, method, seed=4)
        module = ex.unlearn(stack.module(0), task, forget, method, seed=4)
        for name, tensor in module.state_dict().items():
            torch.testing.assert_close(tensor, together.module(0).state_dict()[name], rtol=1e-9, atol=1e-11)
        third = ex.unlearn(stack[2:3], task, forget, method, seed=4)
        for name, tensor in third.params.items():
            torch.testing.assert_close(tensor[0], together.params[name][2], rtol=1e-9, atol=1e-11)


def test_retraining_does_not_know_the_weights_that_came_in(tmp_path: Path) -> None:
    made = [
        ex.unlearn_checkpoint(
            TRAINED.export(member, tmp_path / f"{member}.pt"), TASK, FORGET, out=tmp_path / str(member)
        )
        for member in (0, 1)
    ]
    assert made[0].record.after.weights == made[1].record.after.weights
    assert made[0].record.before.weights != made[1].record.before.weights
    assert made[0].record.source == "retraining"


def test_a_loop_of_ones_own_retrains_with_batch_norm_and_dropout(tmp_path: Path) -> None:
    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))

    def fit(model, dataset, seed):
        steps = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(4):
            for x, y in torch.utils.data.DataLoader(dataset, batch_size=16, shuffle=True, drop_last=True):
                steps.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                steps.step()

    base = small_task("mlp_norm", model=network, precision="float32")
    task = base.with_fit(fit)
    module = ex.train(base, members=1).module(0)
    torch.save({"epoch": 2, "model": module.state_dict()}, tmp_path / "mine.pt")
    done = ex.unlearn_checkpoint(tmp_path / "mine.pt", task, FORGET, "retrain", out=tmp_path / "out", device="cpu")
    assert done.record.cost == pytest.approx(1)
    made = torch.load(done.model, weights_only=True)
    assert made["epoch"] == 2
    task.build(0).load_state_dict(made["model"])
    again = ex.unlearn_checkpoint(tmp_path / "mine.pt", task, FORGET, out=tmp_path / "again", device="cpu")
    assert again.record.after.weights == done.record.after.weights
    ascended = ex.unlearn(module, task, FORGET, GradientAscent(lr=0.01, epochs=1))
    assert isinstance(ascended[3], nn.Dropout)
    with pytest.raises(InputError, match="trains by a fit of its own"):
        ex.unlearn_checkpoint(tmp_path / "mine.pt", task, FORGET, EarlyStoppedRetrain(), out=tmp_path / "early")


def test_a_method_stops_at_an_epoch() -> None:
    whole = ex.unlearn(TRAINED, TASK, FORGET, GradientAscent(lr=0.02, epochs=2), seed=1)
    cut = ex.unlearn(TRAINED, TASK, FORGET, GradientAscent(lr=0.02, epochs=5), seed=1, stop=2)
    assert len(cut.trace.stops) == 2
    assert cut.trace.cost == whole.trace.cost
    assert all(torch.equal(cut.params[name], tensor) for name, tensor in whole.params.items())
    with pytest.raises(InputError, match=r"stop = 6, and .* stops at 1, 2; choose one of these"):
        ex.unlearn(TRAINED, TASK, FORGET, GradientAscent(lr=0.02, epochs=2), stop=6)


def test_a_finished_run_is_not_done_again_and_another_is_refused(tmp_path: Path, model: Path) -> None:
    out, method = tmp_path / "out", GradientAscent(lr=0.02, epochs=1)
    first = ex.unlearn_checkpoint(model, TASK, FORGET, method, out=out)
    written = first.model.stat().st_mtime_ns
    with pytest.raises(InputError, match="holds a run already; add --resume"):
        ex.unlearn_checkpoint(model, TASK, FORGET, method, out=out)
    again = ex.unlearn_checkpoint(model, TASK, FORGET, method, out=out, resume=True)
    assert again.record == first.record
    assert again.model.stat().st_mtime_ns == written
    for changed in ({"method": "retrain"}, {"seed": 1}, {"forget": forget_set(TASK, 8)}):
        asked = {"forget": FORGET, "method": method, "seed": 0, **changed}
        with pytest.raises(InputError, match=f"holds another unlearning of a checkpoint .*{next(iter(changed))}"):
            ex.unlearn_checkpoint(model, TASK, out=out, resume=True, **asked)
    first.model.write_bytes(b"altered")
    ex.unlearn_checkpoint(model, TASK, FORGET, method, out=out, resume=True)
    assert read_state(first.model).keys() == read_state(model).keys()


def test_a_diverged_model_is_not_written(tmp_path: Path, model: Path) -> None:
    with pytest.raises(DivergedError, match=r"not finite; nothing was written\. Lower its rate"):
        ex.unlearn_checkpoint(model, TASK, FORGET, GradientAscent(lr=1e30, epochs=3), out=tmp_path / "out")
    assert not (tmp_path / "out" / model.name).exists()


def test_the_checkpoint_that_came_in_is_never_written_over(tmp_path: Path) -> None:
    came = TRAINED.export(0, tmp_path / "model.pt")
    with pytest.raises(InputError, match="where its successor would be written"):
        ex.unlearn_checkpoint(came, TASK, FORGET, out=tmp_path, resume=True)


def test_a_dear_method_is_told_before_it_runs(tmp_path: Path, model: Path) -> None:
    words = io.StringIO()
    console = Console(file=words, width=200)
    ex.unlearn_checkpoint(model, TASK, FORGET, FineTune(lr=0.01, epochs=4), out=tmp_path / "out", console=console)
    assert "Fine-tune on R will cost about 133% of retraining, which is certain: retrain." in words.getvalue()


def of_labels(task: Task) -> Task:
    """Return the task with labels that mean something else."""
    return Task(
        name="another",
        train=(task.train.x, (task.train.y + 1) % 3),
        validation=(task.validation.x, (task.validation.y + 1) % 3),
        model=task.model,
        recipe=task.recipe,
        classes=3,
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": DoNothing()}, "do_nothing changes nothing"),
        ({"method": "margin_matching"}, "aims at margins that a forecast predicts from an ensemble"),
        (
            {"method": "ascend"},
            r"method 'ascend' is unknown, expected one of: .*; mine\.py:function; or audited FOLDER",
        ),
        ({"method": 3}, "method is an int, expected a method"),
        ({"model": "nowhere.pt"}, r"no file matches 'nowhere\.pt'"),
        ({"model": 3}, "the checkpoint is an int"),
        ({"task": small_task("mlp_norm", n=60, precision="float32")}, "was made for 50 training examples, the task"),
        ({"task": of_labels(TASK)}, "does no better on its training data than an untrained model"),
        ({"task": small_task("mlp", precision="float32")}, "does not fit the model of task 'small-mlp'"),
        ({"forget": 3}, "forget is an int, expected a forget set, or the path"),
        ({"forget": "mislabelled:5"}, "expected rows of a request"),
        ({"forget": "component:1:top:5"}, "expected rows of a request"),
        ({"out": 3}, "out is an int"),
        ({"method": "audited"}, "names no audit, expected audited FOLDER"),
        ({"method": "audited:nowhere"}, "does not exist, expected the folder of a finished run"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(tmp_path, model, changes, message):
    asked = {"model": model, "task": TASK, "forget": FORGET, "method": "retrain", "out": tmp_path / "out", **changes}
    with pytest.raises(InputError, match=message):
        ex.unlearn_checkpoint(**asked)
    assert not (tmp_path / "out").exists()


def test_rows_that_the_task_does_not_have_are_named(tmp_path: Path, model: Path) -> None:
    task = Task(
        name="named",
        train=(TASK.train.x, TASK.train.y),
        validation=(TASK.validation.x, TASK.validation.y),
        model=TASK.model,
        recipe=TASK.recipe,
        ids=[f"c{row}" for row in range(50)],
    )
    for text, message in (("3\n999\n", "999"), ("-1\n", "-1"), ("3\n3\n", "3"), ("x,y\n", "position"), ("", "empty")):
        (tmp_path / "rows.csv").write_text(text)
        with pytest.raises(InputError, match=message):
            ex.unlearn_checkpoint(model, task, tmp_path / "rows.csv", out=tmp_path / "out")
    (tmp_path / "rows.csv").write_text("customer\nc3\nc77\n")
    words = ["unlearn", str(model), str(write_task(tmp_path)), "--forget", str(tmp_path / "rows.csv")]
    for column, message in (("customer", "c77"), ("client", "client")):
        result = CliRunner().invoke(ex_app(), [*words, "--id-column", column, "--out", str(tmp_path / "out")])
        assert message in str(result.exception)
    assert not (tmp_path / "out").exists()


def ex_app():
    from expunge.cli import app

    return app


def write_task(folder: Path) -> Path:
    """Write a task file with the data of the task above and names of its rows, and a function beside it."""
    save_file(
        {"x": TASK.train.x, "y": TASK.train.y, "vx": TASK.validation.x, "vy": TASK.validation.y},
        folder / "d.safetensors",
    )
    path = folder / "task.py"
    path.write_text(
        "from pathlib import Path\nimport expunge as ex\n"
        "from safetensors.torch import load_file\nfrom torch import nn\n"
        "d = load_file(Path(__file__).with_name('d.safetensors'))\n"
        "def model():\n"
        "    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))\n"
        "task = ex.Task(name='named', train=(d['x'], d['y']), validation=(d['vx'], d['vy']), model=model, classes=3,\n"
        "    ids=[f'c{row}' for row in range(50)],\n"
        "    recipe=ex.Recipe(epochs=3, batch_size=16, lr=0.1, peak_epoch=1.0, weight_decay=1e-2))\n"
    )
    (folder / "mine.py").write_text(
        "def shrink(model, retain_loader, forget_loader, validation_loader):\n    model[3].weight.data.mul_(0.9)\n"
    )
    return path


def test_the_command_line(tmp_path: Path, model: Path) -> None:
    task = write_task(tmp_path)
    (tmp_path / "rows.csv").write_text("customer,when\nc3,2026\nc17,2026\n")
    words = ["unlearn", str(model), str(task), "--forget", str(tmp_path / "rows.csv"), "--id-column", "customer"]
    words += ["--method", f"{tmp_path / 'mine.py'}:shrink", "--out", str(tmp_path / "out"), "--device", "cpu"]
    result = CliRunner().invoke(ex_app(), words, catch_exceptions=False)
    assert "Retrain (--method retrain), or audit first" in " ".join(result.output.split())
    assert f"Checkpoint: {tmp_path / 'out' / 'model.safetensors'}" in result.output
    again = CliRunner().invoke(ex_app(), [*words, "--resume", "--json"], catch_exceptions=False)
    answer = json.loads(again.stdout)
    assert (answer["method"], answer["source"], answer["forget"]["size"]) == ("shrink", "own function", 2)
    shown = CliRunner().invoke(ex_app(), ["report", str(tmp_path / "out")], catch_exceptions=False)
    assert "shrink" in shown.output
    record = Unlearning.load(tmp_path / "out")
    config = ["unlearn", *words[1:3], "--forget", "x.csv", "--config", str(tmp_path / "out" / "unlearn.json")]
    assert record.command.split()[:2] == ["expunge", "unlearn"]
    result = CliRunner().invoke(ex_app(), [*config, "--resume"])
    assert "x.csv" in str(result.exception)  # what is typed wins


def test_models_known_by_outputs_alone_are_refused(tmp_path: Path, model: Path) -> None:
    outputs = ex.OutputsAlone(train=np.zeros((50, 3), "float32"), validation=np.zeros((20, 3), "float32"))
    task = Task(
        name="outputs",
        train=(TASK.train.x, TASK.train.y),
        validation=(TASK.validation.x, TASK.validation.y),
        model=None,
        fit=lambda model, dataset, seed: outputs,
    )
    with pytest.raises(InputError, match="known by their outputs alone, so there are no weights"):
        ex.unlearn_checkpoint(model, task, FORGET, out=tmp_path / "out")
    with pytest.raises(InputError, match="known by their outputs alone, so no module"):
        ex.unlearn(TRAINED.module(0), task, FORGET, Retrain())
