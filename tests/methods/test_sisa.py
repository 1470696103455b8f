"""Models that vote, and SISA: what it leaves is, bit by bit, what training without the rows would have left."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import expunge as ex
from expunge.core import ForgetSet, InputError
from expunge.core.tree import clone
from expunge.core.voting import part_of
from expunge.ensembles import build_network, train
from expunge.ensembles.states import new_descent
from expunge.methods import METHODS, FineTune, GradientAscent, Retrain, Sisa, SmallBatchRetrain, unlearn
from expunge.studies.audit.forget_set import Study, _ensemble
from expunge.studies.run.forecasting import check_forecastable
from expunge.studies.run.given import Given
from expunge.studies.run.grid import plan_runs
from expunge.studies.run.parts import PartStore
from expunge.tasks import load_task, sisa
from reference.problems import forget_set, small_task
from reference.sisa_slow import places, train_voters

MEMBERS, VOTERS = 3, 3


def small(name="mlp", **recipe):
    # No batch of one for batch norm, whatever rows are left.
    return small_task(name, **({"batch_size": 4, "last_batch": "drop"} if name == "mlp_norm" else {}), **recipe)


def voting_task(name="mlp", **recipe):
    return sisa(small(name, **recipe), voters=VOTERS)


def rows_of(task, *voters, size=4):
    """A forget set of rows of these voters alone."""
    places = task.voting.place
    found = np.concatenate([np.flatnonzero(places == voter)[:size] for voter in voters])
    return ForgetSet.of(task, np.sort(found), name="theirs", how="rows of some voters")


def equal(one, other):
    return set(one) == set(other) and all(torch.equal(one[key], other[key]) for key in one)


def state_of(ensemble):
    return {**ensemble.params, **ensemble.buffers}


def test_voters_part_the_rows_by_their_inputs_and_removing_some_moves_no_other():
    base = small_task("mlp", n=90)
    task = sisa(base, voters=4)
    assert task.voting.place.tolist() == places(base.train.x.numpy(), 4)
    everything = torch.arange(90)
    parts = [task.voting.rows(voter, everything) for voter in range(4)]
    assert torch.cat(parts).sort().values.tolist() == list(range(90))
    kept = torch.arange(0, 90, 2)
    fewer = sisa(
        ex.Task(
            name="fewer",
            train=(base.train.x[kept], base.train.y[kept].roll(1)),
            validation=(base.validation.x, base.validation.y),
            model=base.model,
            recipe=base.recipe,
        ),
        voters=4,
    )
    assert torch.equal(fewer.voting.place, task.voting.place[kept])


@pytest.mark.parametrize("model", ["mlp", "mlp_norm", "cnn"])
def test_training_equals_its_slow_twin_and_the_vote_is_the_mean_of_probabilities(model):
    task = voting_task(model)
    forget = forget_set(task, 7)
    found = train(task, members=2, seed=4, first=5, without=forget)
    margins = found.margins(task.validation.x, task.validation.y)
    for place, member in enumerate((5, 6)):
        modules = train_voters(task, small(model), forget.retain, member, 4)
        for voter, module in enumerate(modules):
            own = part_of(state_of(found), voter)
            for name, tensor in module.state_dict().items():
                assert float((own[name][place] - tensor).abs().max()) < 1e-9
        with torch.no_grad():
            p = torch.stack([module(task.validation.x).softmax(-1) for module in modules]).mean(0)
        true = p.gather(1, task.validation.y[:, None])[:, 0]
        torch.testing.assert_close(margins[place], (true / (1 - true)).log(), rtol=0, atol=1e-7)
        torch.testing.assert_close(found.module(place)(task.validation.x), p.log(), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("model", "optimizer"), [("mlp", "sgd"), ("mlp_norm", "adamw"), ("cnn", "sgd")])
@pytest.mark.parametrize("touched", [(1,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_it_is_training_without_the_rows_bit_by_bit(model, optimizer, touched, precision):
    task = voting_task(model, optimizer=optimizer, precision=precision, lr=0.1 if optimizer == "sgd" else 0.01)
    forget = rows_of(task, *touched)
    pretrained = train(task, members=MEMBERS, seed=4, chunk=2)
    oracle = train(task, members=MEMBERS, seed=4, chunk=2, without=forget)
    found = unlearn(pretrained, task, forget, Sisa(), seed=9)
    assert equal(state_of(found), state_of(oracle))
    assert [list(part) for part in (found.params, found.buffers)] == [
        list(part) for part in (pretrained.params, pretrained.buffers)
    ]
    for voter in range(VOTERS):
        same = equal(part_of(state_of(found), voter), part_of(state_of(pretrained), voter))
        assert same == (voter not in touched)
    left = [len(task.voting.rows(voter, torch.from_numpy(forget.retain))) for voter in touched]
    left = [size - size % 4 for size in left] if model == "mlp_norm" else left
    assert found.trace.cost == pytest.approx(sum(left) / len(forget.retain))
    if model == "mlp":
        assert Sisa().cost_of(task, forget) == pytest.approx(found.trace.cost)
    assert found.trace.failed_checks == []


def test_nothing_comes_from_the_forget_set():
    task = voting_task("mlp")
    forget = rows_of(task, 1)
    wrong = task.with_labels(forget.indices, (task.train.y[forget.indices] + 1) % 3, task.name)
    one, other = (unlearn(train(each, members=2, seed=4), each, forget, Sisa()) for each in (task, wrong))
    assert equal(one.params, other.params)
    assert not equal(train(task, members=2, seed=4).params, train(wrong, members=2, seed=4).params)


def test_voters_train_on_nothing_but_their_rows():
    task = voting_task("mlp")
    whole = train(task, members=2, seed=4)
    for voter in range(VOTERS):
        gone = [row for row in range(len(task.train)) if int(task.voting.place[row]) != voter][::2]
        forget = ForgetSet.of(task, gone, name="others", how="rows of other voters")
        own = train(task, members=2, seed=4, without=forget)
        assert equal(part_of(own.params, voter), part_of(whole.params, voter))


def test_one_request_after_another_is_exact_and_what_another_method_left_is_refused():
    task = voting_task("mlp")
    first = rows_of(task, 1)
    later = rows_of(task, 2)
    both = ForgetSet.of(task, np.concatenate([first.indices, later.indices]), name="both", how="both requests")
    pretrained = train(task, members=2, seed=4)
    once = unlearn(pretrained, task, first, Sisa())
    twice = unlearn(once, task, later, Sisa())
    assert equal(twice.params, train(task, members=2, seed=4, without=both).params)
    with pytest.raises(InputError, match="fine_tune changed all voters of these models"):
        unlearn(unlearn(pretrained, task, first, FineTune(epochs=1)), task, first, Sisa())
    unlearn(unlearn(pretrained, task, first, Retrain()), task, first, Sisa())
    with pytest.raises(InputError, match="trained on other rows than all of small-mlp-sisa-3"):
        unlearn(train(task, members=2, without=later), task, first, Sisa())


def test_a_module_and_models_from_files_are_taken_on_trust(tmp_path):
    task = voting_task("mlp", precision="float32")
    forget, pretrained = rows_of(task, 1), train(task, members=2, seed=4)
    module = unlearn(pretrained.module(0), task, forget, Sisa())
    assert isinstance(module, nn.Module)
    pretrained.save(tmp_path / "saved")
    loaded = ex.Ensemble.load(tmp_path / "saved", task)
    assert equal(unlearn(loaded, task, forget, Sisa()).params, unlearn(pretrained, task, forget, Sisa()).params)
    for member in (0, 1):
        pretrained.export(member, tmp_path / f"{member}.safetensors")
    read = ex.Ensemble.from_files(str(tmp_path / "*.safetensors"), task)
    found = unlearn(read, task, forget, Sisa())
    for state in (found.params, {name: tensor[None] for name, tensor in module.named_parameters()}):
        for voter in (0, 2):
            own, before = (part_of(each, voter) for each in (state, pretrained.params))
            assert all(torch.equal(own[name][0], before[name][0]) for name in own)
        assert not torch.equal(part_of(state, 1)["0.weight"][0], part_of(pretrained.params, 1)["0.weight"][0])


class Killed(Exception):  # noqa: N818
    """Stands for a kill."""


def test_a_killed_training_goes_on_in_its_store_with_the_same_numbers(tmp_path):
    task = voting_task("mlp")
    whole = train(task, members=4, seed=4, chunk=2, workers=1)
    seen = []

    def stop(done, total):
        seen.append((done, total))
        if done >= 5:  # of 4 members in 3 epochs: one voter is there, and a part of the next
            raise Killed

    with pytest.raises(Killed):
        train(task, members=4, seed=4, chunk=2, workers=1, store=tmp_path, progress=stop)
    assert 1 <= len(list(tmp_path.glob("*/members-*"))) < 6
    again = train(task, members=4, seed=4, workers=1, store=tmp_path)
    assert equal(again.params, whole.params)
    assert not again.provenance["reused"]
    found = train(task, members=4, seed=4, store=tmp_path, progress=lambda *done: seen.append(done))
    assert found.provenance["reused"]
    assert equal(found.params, whole.params)
    assert seen[-1] == (12, 12)
    more = train(task, members=5, seed=4, store=tmp_path)
    assert equal({name: tensor[:4] for name, tensor in more.params.items()}, whole.params)


def test_members_with_rows_of_their_own_are_those_trained_alone():
    task = voting_task("mlp")
    masks = np.random.default_rng(0).random((4, len(task.train))) < 0.7
    found = train(task, members=4, examples=masks, seed=4)
    for member in range(4):
        alone = train(task, members=1, first=member, examples=masks[member : member + 1], seed=4)
        for name, tensor in alone.params.items():
            torch.testing.assert_close(found.params[name][member], tensor[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("model", ["mlp_norm", "cnn"])
def test_the_stack_is_evaluated_and_differentiated_like_its_modules(model):
    task = voting_task(model)
    ensemble = train(task, members=2, seed=4, epochs=1)
    assert task.network.kind == "layers"
    assert build_network(task, "one").kind == "one"
    x, y = task.train.x[:16].expand(2, -1, *task.train.x.shape[1:]), task.train.y[:16].expand(2, -1)
    after = []
    for network in (task.network, build_network(task, "one")):
        descent = new_descent(network, clone(ensemble.params), clone(ensemble.buffers), task.recipe)
        for _ in range(2):
            descent.step(x, y, 0.1)
        params, buffers = descent.state()
        after.append({**params, **buffers})
    for name, tensor in after[0].items():
        torch.testing.assert_close(tensor, after[1][name], rtol=0, atol=1e-9)
        assert not torch.equal(tensor, state_of(ensemble)[name])


def test_retraining_in_other_ways_trains_voters_apart_as_well():
    task = voting_task("mlp")
    forget, pretrained = rows_of(task, 1), train(task, members=2, seed=4)
    found = unlearn(pretrained, task, forget, Retrain(), seed=1)
    assert found.trace.cost == 1
    more = ForgetSet.of(task, np.concatenate([forget.indices, rows_of(task, 2).indices]), name="more", how="more")
    other = unlearn(pretrained, task, more, Retrain(), seed=1)
    assert equal(part_of(found.params, 0), part_of(other.params, 0))  # whose rows are the same
    assert not equal(part_of(found.params, 2), part_of(other.params, 2))
    assert unlearn(pretrained, task, forget, SmallBatchRetrain(cost=1 / 3)).trace.cost == pytest.approx(1 / 3)
    climbed = unlearn(pretrained, task, forget, GradientAscent(lr=0.01, epochs=1))
    assert not equal(part_of(climbed.params, 0), part_of(pretrained.params, 0))  # it reaches all voters


def test_what_the_models_of_a_task_do_not_allow_is_left_out_and_refused_with_why():
    plain, task = small_task("mlp"), voting_task("mlp")
    assert "sisa" not in {run.name for run in plan_runs(plain, ["all"])}
    planned = {run.name for run in plan_runs(task, ["all"])}
    lacking = {"cf_k", "eu_k", "evidential_repair", "perturb_and_repair", "rewind", "margin_matching"}
    assert "sisa" in planned
    assert not planned & lacking
    assert {"gradient_ascent", "scrub", "ssd", "newton", "retrain", "early_stopped_retrain"} <= planned
    with pytest.raises(
        InputError, match=r"sisa needs models that are several networks.*ex\.tasks\.sisa\(task, voters=5\)"
    ):
        unlearn(train(plain, members=1), plain, forget_set(plain), Sisa())
    with pytest.raises(
        InputError, match="cf_k needs layers one after another, and the models of small-mlp-sisa-3 are 3"
    ):
        unlearn(train(task, members=1), task, forget_set(task), METHODS["cf_k"]())
    with pytest.raises(InputError, match=r"keep = \[1\] was given, and the models of task 'small-mlp-sisa-3' vote"):
        train(task, members=1, keep=[1])
    with pytest.raises(InputError, match="a forecast follows one training on all rows"):
        check_forecastable(task, 2, torch.device("cpu"))


def test_tasks_that_cannot_vote_are_refused():
    plain = small_task("mlp")
    with pytest.raises(InputError, match="trains by a fit of its own"):
        sisa(plain.with_fit(lambda model, data, seed: None))
    with pytest.raises(InputError, match="vote already"):
        sisa(sisa(plain))
    with pytest.raises(InputError, match="their voters are trained by its recipe"):
        sisa(plain).with_fit(lambda model, data, seed: None)
    with pytest.raises(InputError, match="voters = 1"):
        sisa(plain, voters=1)
    with pytest.raises(InputError, match=r"voters = 60: voter .* has none of the 50 rows"):
        sisa(plain, voters=60)
    task = voting_task("mlp")
    everything = rows_of(task, 1, size=50)
    for attempt in (
        lambda: train(task, members=1, without=everything),
        lambda: unlearn(train(task, members=1), task, everything, Sisa()),
    ):
        with pytest.raises(InputError, match="voter 1 of small-mlp-sisa-3: a member has no examples"):
            attempt()


def test_the_task_is_told_from_its_base_and_by_its_number_of_voters():
    base = small_task("mlp")
    prints = {base.fingerprint, sisa(base, voters=3).fingerprint, sisa(base, voters=4).fingerprint}
    assert len(prints) == 3
    named = load_task("digits:sisa")
    assert named.name == "digits-sisa-5"
    assert named.voting.voters == 5
    assert "5" in named.describe()["architecture"]


def test_an_audit_judges_it_like_any_other_and_goes_on(tmp_path):
    task = sisa(small_task("mlp", n=80, epochs=4, lr=0.05, batch_size=40), voters=2)
    arguments = {"forget": ["random:2"], "members": 20, "out": tmp_path / "run", "methods": ["sisa"]}
    run = ex.audit(task, **arguments)
    found = next(c for c in run.record.forget_sets[0].configurations if c.method == "sisa")
    assert not found.control
    assert found.certificate.startswith("exact")
    assert found.verdict.name in {"indistinguishable", "undecided"}
    assert found.cost <= 1
    assert any(note.startswith("No forecast was made: a forecast follows one training") for note in run.record.notes)
    again = ex.audit(task, **arguments, resume=True)
    assert again.record.model_dump_json(include={"forget_sets"}) == run.record.model_dump_json(include={"forget_sets"})


class Quiet:
    """Hears what an audit reports."""

    def __getattr__(self, name):
        return lambda *_, **__: None


def test_oracles_of_two_forget_sets_share_no_voter(tmp_path):
    task = voting_task("mlp")
    cpu, reporter = torch.device("cpu"), Quiet()
    study = Study(task, 2, 0, 0.1, 0.1, cpu, None, tmp_path, reporter, PartStore(tmp_path), False, Given({}))
    one, other = (_ensemble(study, task, "oracle", rows_of(task, voter)) for voter in (1, 2))
    assert not equal(part_of(one.params, 0), part_of(other.params, 0))  # though voter 0 has the same rows
