"""Request after request: what each step reads, what each oracle has seen, and how drift is measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from expunge.core import InputError
from expunge.ensembles import train
from expunge.methods import FineTune
from expunge.papers.sequential_drift import study
from expunge.papers.sequential_drift.chain import Relabelled, step
from expunge.papers.sequential_drift.readings import LEAST, Draws, above, exponents, growth, middle, readings
from expunge.papers.sequential_drift.record import READINGS, DriftRecord
from expunge.papers.sequential_drift.report import answer, draw
from expunge.studies.request.drift import MEASURED
from expunge.tasks import digits
from reference.chain_slow import fine_tune_request, left_after, readings_slow
from reference.one_by_one import train_one

SMALL = study.Preset(members=4, requests=2, size=10, shares=(0.0, 1.0))


@pytest.fixture(scope="module")
def small():
    task = digits(epochs=2, precision="float64")
    return study.Study(task, SMALL, 3, torch.device("cpu"))


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory):
    return study.run_study(small, tmp_path_factory.mktemp("drift"), command="expunge reproduce x")[0]


@pytest.mark.parametrize("request_number", [1, 2])
def test_an_oracle_has_seen_all_but_the_rows_of_its_requests(small, request_number):
    left = left_after(small.task, small.blocks.removed, request_number)
    assert len(left) == len(small.task.train) - 10 * request_number
    models = small.train("oracle", request_number)
    twin = train_one(small.task, left, 1, models.seed)
    with torch.no_grad():
        assert torch.allclose(models.module(1)(small.x), twin(small.x), rtol=1e-8, atol=1e-8)


def test_blocks_are_disjoint_and_the_rest_is_never_removed(small):
    blocks = small.blocks
    rows = np.concatenate([*blocks.removed, blocks.order])
    assert sorted(rows) == list(range(len(small.task.train)))
    assert set(blocks.kept(50)) <= set(blocks.order)
    assert set(blocks.anchor(0.1)) <= set(blocks.anchor(0.5))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_steps_agree_with_one_model_at_a_time(small, share):
    task, blocks = small.task, small.blocks
    models = train(task, members=2, seed=1, epochs=1, chunk=2)
    twins = [models.module(0), models.module(1)]
    anchor = set(range(len(task.train))) if share == 1.0 else set(blocks.anchor(share).tolist())
    method = FineTune(lr=0.1, epochs=2, batch_size=100, momentum=0.0, weight_decay=0.0)
    for request in (1, 2):
        models = step(models, blocks, request, method, share, seed=5, chunk=1, workers=2)
        twins = [
            fine_tune_request(task, twin, member, blocks.removed, request, anchor, lr=0.1, epochs=2, batch=100, seed=5)
            for member, twin in enumerate(twins)
        ]
    for member, twin in enumerate(twins):
        for name, tensor in twin.state_dict().items():
            assert torch.allclose(models.params[name][member], tensor, rtol=1e-8, atol=1e-10), name


def test_removed_rows_are_never_visited_again_and_drawn_labels_follow_the_last_model(small):
    models = train(small.task, members=40, seed=1, epochs=1)
    problem = Relabelled(models, small.blocks, 2, 0.25, 0, "x")
    visited = torch.cat([index for _, _, index in problem.retain_batches(1, 64)], 1)
    assert not set(visited.flatten().tolist()) & set(np.concatenate(small.blocks.removed).tolist())
    rows = torch.from_numpy(small.blocks.anchor(0.25))
    assert torch.equal(problem.labels[:, rows], problem.y[rows].expand(40, -1))
    others = torch.from_numpy(np.setdiff1d(small.blocks.order, rows.numpy()))
    real = small.task.train.y[others].expand(40, -1).unsqueeze(2)
    expected = torch.softmax(models.logits(small.task.train.x[others]), 2).gather(2, real)
    right = (problem.labels[:, others] == real.squeeze(2)).double()
    # 40 members x some 1,000 rows: five standard errors, failed by chance less than once in a million.
    error = float((expected * (1 - expected)).sum().sqrt() / expected.numel())
    assert abs(float(right.mean() - expected.mean())) < 5 * error


def test_readings_agree_with_row_by_row():
    rng = np.random.default_rng(0)
    mine, theirs = rng.normal(1, 2, (30, 7)), rng.normal(0, 1, (30, 7))
    draws = Draws.of(30, 1, 0, replicates=3)
    found = readings(mine, theirs, draws.members, draws.oracles[0])
    assert {name: pytest.approx(values[0]) for name, values in found.items()} == readings_slow(mine, theirs)
    for replicate in (1, 2, 3):
        again = [
            np.repeat(side, weight[replicate].astype(int), axis=0)
            for side, weight in ((mine, draws.members), (theirs, draws.oracles[0]))
        ]
        slow = readings_slow(*again, unit=theirs.var(0, ddof=1), errors=2)
        assert found["shift"][replicate] == pytest.approx(slow["shift"])
        assert found["spread"][replicate] == pytest.approx(slow["spread"])


@pytest.mark.parametrize(("power", "word"), [(0.5, "grows as the root of k"), (1.0, "grows as k")])
def test_walks_and_steady_drift_are_told_apart(power, word):
    rng = np.random.default_rng(1)
    members, rows, requests = 100, 40, 16
    start = rng.normal(0, 1, (members, rows))
    if power == 0.5:
        chain = start + np.cumsum(rng.normal(0, 0.8, (requests, members, rows)), 0)
        name = "spread"
    else:
        chain = start + 0.5 * np.arange(1, requests + 1)[:, None, None]
        name = "shift"
    draws = Draws.of(members, requests, 0, replicates=60)
    found = []
    for k in range(requests):
        oracle, held_out = rng.normal(0, 1, (2, members, rows))
        floor = readings(held_out, oracle, draws.held_out[k], draws.oracles[k])
        found.append(above(readings(chain[k], oracle, draws.members, draws.oracles[k]), floor)[name])
    _, slopes = exponents(np.stack(found, 1), LEAST[name])
    low, high = middle(slopes)
    # Over 40 rows that walk on their own the exponent is known to 0.02; intervals are no wider than they need be.
    assert abs(slopes[0] - power) < 0.15
    assert high - low < 0.4
    assert growth(low - 0.05, high + 0.05, 1.0, LEAST[name]) == word


def test_a_failed_model_is_worst_and_spoils_no_mean():
    rng = np.random.default_rng(2)
    mine, theirs = rng.normal(0, 1, (2, 20, 5))
    weights = np.ones((1, 20))
    sound = readings(mine, theirs, weights, weights)
    mine[3] = np.nan
    found = readings(mine, theirs, weights, weights)
    assert found["klom"][0] > sound["klom"][0]
    assert found["spread"][0] == pytest.approx(readings_slow(np.delete(mine, 3, 0), theirs)["spread"])


def test_the_record_holds_every_chain_and_a_killed_run_goes_on(small, folder, tmp_path, monkeypatch):
    record = DriftRecord.load(folder)
    assert [(chain.name, chain.share) for chain in record.chains][:3] == [
        ("do_nothing", None),
        ("fine_tune", 0.0),
        ("fine_tune", 1.0),
    ]
    assert len(record.chains) == 1 + 3 * 2
    assert all(len(chain.curves[name].values) == 2 for chain in record.chains for name in READINGS)
    whole, trained = small.train, []

    def killed(role, request):
        if trained and role == "pretrained":
            raise KeyboardInterrupt
        trained.append((role, request))
        return whole(role, request)

    monkeypatch.setattr(small, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        study.run_study(small, tmp_path / "run")
    monkeypatch.setattr(
        small, "train", lambda role, request: (trained.append((role, request)), whole(role, request))[1]
    )
    _, again = study.run_study(small, tmp_path / "run", resume=True)
    assert again.chains == record.chains
    assert len(trained) == len(set(trained)) == 2 * 2 + 1


def test_the_page_holds_answer_figure_and_tables(folder):
    page = draw(folder).read_text()
    record = DriftRecord.load(folder)
    assert answer(record)[0].split("?")[0] in page
    assert "<svg" in page
    assert "<script" not in page
    assert (folder / "figures" / "drift.png").is_file()


def test_the_command_plans_runs_and_draws_again(shell, tmp_path, monkeypatch):
    monkeypatch.setitem(study.PRESETS, "tiny", SMALL)
    monkeypatch.setattr(study, "digits", lambda **options: digits(epochs=1, **options))
    words = ("reproduce", "sequential-drift", "--preset", "tiny", "--out", str(tmp_path / "run"), "--json")
    plan = json.loads(shell(*words, "--plan").stdout)
    assert (plan["trained"], plan["steps"]) == (20, 12)
    assert not (tmp_path / "run").exists()
    done = shell(*words)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["answer"][0].startswith("Do models go apart")
    assert len(said["record"]["chains"]) == 7
    again = shell("report", str(tmp_path / "run"))
    assert "Do models go apart" in again.stdout
    assert all(len(line) <= 80 for line in again.stdout.splitlines() if "Report:" not in line)


def test_unknown_papers_and_presets_are_named(shell, tmp_path):
    for words, expected in (
        (("reproduce", "fermat"), "sequential-drift"),
        (("reproduce", "sequential-drift", "--preset", "huge"), "tiny"),
    ):
        done = shell(*words)
        assert done.returncode == 2
        assert expected in done.stderr
    with pytest.raises(InputError, match="preset"):
        study.run("huge", out=tmp_path)


def test_the_rule_of_the_ledger_is_that_of_the_page():
    page = (Path(__file__).parents[2] / "docs" / "sequential_drift.md").read_text()
    for name, (a, b) in MEASURED.items():
        assert f"| `{name}` | {a:.2f} | {b:.2f} |" in page
