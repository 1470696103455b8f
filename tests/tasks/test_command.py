"""A command that trains: its rows, its seed, what it leaves, and what is said when it leaves something else."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from expunge import OutputsAlone, Task
from expunge.core import InputError
from expunge.ensembles import train
from expunge.tasks import command, random_forget_set
from reference.own_loops import own_task

# A model of another framework, so to speak: the mean of each class.
SCRIPT = """
import sys
import numpy as np
rows, seed, out = np.loadtxt(sys.argv[1], dtype=int), int(sys.argv[2]), sys.argv[3]
data = np.load({data!r})
x, y, vx = data["x"], data["y"], data["vx"]
means = np.stack([x[rows][y[rows] == k].mean(0) for k in range(3)])
means += np.random.default_rng(seed).normal(size=means.shape) * 0.1
outputs = {{"train": -((x[:, None] - means) ** 2).sum(-1), "validation": -((vx[:, None] - means) ** 2).sum(-1)}}
{end}
"""


def task_of(tmp_path, end, model=None, places="{rows} {seed} {out}"):
    like = own_task()
    np.savez(tmp_path / "data.npz", x=like.train.x, y=like.train.y, vx=like.validation.x)
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(data=str(tmp_path / "data.npz"), end=end))
    fit = command(f"{sys.executable} {script} {places}")
    pairs = {"train": (like.train.x, like.train.y), "validation": (like.validation.x, like.validation.y)}
    return Task(name="commanded", model=model, fit=fit, **pairs)


ENDINGS = {
    "npz": "np.savez(out, **outputs)",
    "no ending": "np.savez(open(out, 'wb'), **outputs)",
    "npy": "import os; os.mkdir(out); [np.save(f'{out}/{name}', a) for name, a in outputs.items()]",
    "safetensors": "from safetensors.numpy import save_file; save_file(outputs, out + '.safetensors')",
}


def test_outputs_alone_are_read_in_every_format_and_looked_up_by_example(tmp_path):
    found = []
    for number, end in enumerate(ENDINGS.values()):
        (tmp_path / str(number)).mkdir()
        task = task_of(tmp_path / str(number), end)
        found.append(train(task, members=2 if number == 0 else 1, seed=3))
    ensemble = found[0]
    assert ensemble.network.kind == "outputs"
    assert len(ensemble) == 2
    for other in found[1:]:
        assert torch.equal(other.params["train"], ensemble.params["train"][:1])
    task = task_of(tmp_path, "")
    some = [5, 2, 70]
    logits = ensemble.logits(task.train.x[some])
    assert torch.equal(logits, ensemble.params["train"][:, some])
    assert torch.equal(ensemble.logits(task.validation.x), ensemble.params["validation"])
    assert ensemble.accuracy(task.train.x, task.train.y).min() > 0.6
    mixed = torch.cat([task.validation.x[:2], task.train.x[:1]])
    assert torch.equal(ensemble.logits(mixed)[:, 2], ensemble.params["train"][:, 0])
    with pytest.raises(InputError, match=r"1 of 3 examples are not among those of the task.*outputs alone"):
        ensemble.logits(torch.cat([task.train.x[:2], torch.zeros(1, 6)]))
    with pytest.raises(InputError, match="outputs alone, so there is no module"):
        ensemble.module(0)


def test_a_forget_set_is_left_out_of_the_rows(tmp_path):
    task = task_of(tmp_path, "outputs['train'][:] = 0; outputs['train'][rows, 0] = 1; np.savez(out, **outputs)")
    forget = random_forget_set(task, size=9, seed=0)
    told = train(task, members=1, without=forget).params["train"][0, :, 0]
    assert torch.nonzero(told).flatten().tolist() == forget.retain.tolist()


def test_weights_that_a_command_leaves_are_the_members(tmp_path):
    end = (
        "import torch; torch.manual_seed(seed); torch.save({'weight': torch.randn(3, 6), 'bias': torch.zeros(3)}, out)"
    )
    task = task_of(tmp_path, end, model=lambda: torch.nn.Linear(6, 3))
    ensemble = train(task, members=2)
    assert not torch.equal(ensemble.params["weight"][0], ensemble.params["weight"][1])
    assert ensemble.module(1)(task.train.x[:1]).shape == (1, 3)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("raise ValueError('no such column')", r"member 0: the command ended with exit code 1.*no such column"),
        ("pass", r"the command left no file at \{out\}"),
        ("np.savez(out, train=outputs['train'])", r"with the arrays \['train'\], expected `train` and `validation`"),
        ("outputs['train'] = x; np.savez(out, **outputs)", r"train outputs of member 0 have shape \(96, 6\), expected"),
        ("open(out + '.npz', 'w').write('PK?')", r"out.npz, which the command left, cannot be read"),
        ("outputs['train'] = np.array([None] * 96); np.savez(out, **outputs)", "cannot be read .*pickle"),
    ],
    ids=["fails", "nothing", "half", "shape", "damaged", "objects"],
)
def test_what_a_command_does_wrong_is_told(tmp_path, end, said):
    with pytest.raises(InputError, match=f"(?s){said}"):
        train(task_of(tmp_path, end), members=1)


def test_commands_that_cannot_be_run_are_refused():
    with pytest.raises(InputError, match=r"has the places \{rows\}, expected \{rows\}, \{seed\} and \{out\}"):
        command("python train.py {rows}")
    with pytest.raises(InputError, match="cannot be read"):
        command("python 'train.py {rows} {seed} {out}")
    task = own_task(command("no-such-program {rows} {seed} {out}"))
    with pytest.raises(InputError, match=r"'no-such-program' cannot be run \(No such file"):
        train(task, members=1)


def test_a_task_without_a_model_says_what_it_lacks():
    like = own_task()
    pairs = {"train": (like.train.x, like.train.y), "validation": (like.validation.x, like.validation.y)}
    with pytest.raises(InputError, match="neither a model nor a fit"):
        train(Task(name="none", model=None, **pairs), members=1)
    with pytest.raises(InputError, match=r"fit returned None for member 0, and the task has no model"):
        train(Task(name="none", model=None, fit=lambda *_: None, **pairs), members=1)
    same = OutputsAlone(np.zeros((96, 3)), np.zeros((48, 3)))
    with pytest.raises(InputError, match=r"members [012] and [12] .* came out the same.*fit ignores its seed"):
        train(Task(name="same", model=None, fit=lambda *_: same, **pairs), members=3)
    with pytest.raises(InputError, match="outputs alone give the task model=None"):
        train(own_task(lambda *_: same), members=1)
