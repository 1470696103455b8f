"""A member is itself: its weights depend on the task, its examples, the seed and its index, and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from expunge.core import DivergedError, ForgetSet, InputError, Recipe, Task
from expunge.core.seeds import derive
from expunge.core.tree import take
from expunge.ensembles import Descent, Steps, build_network, train
from expunge.ensembles.batches import batches, epoch_order, gather
from expunge.ensembles.initialise import initialise
from expunge.ensembles.losses import cross_entropy, cross_entropy_with_gradient
from reference.one_by_one import stack, train_one
from reference.problems import blobs, forget_set, mlp, poisoned, small_task


def state_of(ensemble):
    return {**ensemble.params, **ensemble.buffers}


def largest_difference(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet"])
@pytest.mark.parametrize(("chunk", "workers"), [(1, 1), (7, 1), (9, 2), (7, 2), (1, 2), (None, None)])
def test_chunks_and_workers_make_no_difference_in_float64(name, chunk, workers):
    task = small_task(name)
    whole = train(task, members=9, chunk=9, workers=1)
    other = train(task, members=9, chunk=chunk, workers=workers)
    assert largest_difference(state_of(whole), state_of(other)) < 1e-10


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet"])
def test_chunks_make_no_difference_beyond_rounding_in_float32(name):
    task = small_task(name, precision="float32")
    whole = train(task, members=9, chunk=9)
    for chunk in (1, 7):
        assert largest_difference(state_of(whole), state_of(train(task, members=9, chunk=chunk))) < 1e-5


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_chunks_make_no_difference_at_all_to_linear_layers_in_float32(optimiser):
    task = small_task("mlp", precision="float32", optimizer=optimiser, lr=0.05)
    whole = train(task, members=9, chunk=9)
    for chunk in (1, 2, 4, 7):
        assert equal(whole.params, train(task, members=9, chunk=chunk).params), chunk


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet"])
def test_the_number_of_workers_makes_no_difference_at_all(name):
    task = small_task(name, precision="float32")
    assert equal(
        state_of(train(task, members=9, chunk=2, workers=1)), state_of(train(task, members=9, chunk=2, workers=2))
    )


def test_two_runs_are_bitwise_equal():
    task = small_task("resnet", precision="float32")
    assert equal(state_of(train(task, members=4, chunk=2)), state_of(train(task, members=4, chunk=2)))


def test_first_makes_the_later_members_of_a_larger_ensemble():
    task = small_task("mlp")
    whole, late = train(task, members=6), train(task, members=2, first=4)
    assert late.ids == (4, 5)
    assert largest_difference(take(state_of(whole), slice(4, 6)), state_of(late)) < 1e-10


@pytest.mark.parametrize("kind", ["layers", "vmap"])
@pytest.mark.parametrize("name", ["mlp_norm", "cnn", "resnet"])
def test_a_member_that_diverges_leaves_the_others_alone(name, kind):
    task = small_task(name)
    network = build_network(task, kind)

    def run(spoil):
        params, buffers = initialise(task, [1, 2, 3])
        if spoil:
            for tensor in params.values():
                tensor[1] = float("nan")
        descent = Descent(network, params, buffers, Steps(momentum=0.9, weight_decay=1e-2, statistics="updated"))
        order = epoch_order(torch.arange(50).expand(3, -1), [5, 6, 7], 0)
        losses = [descent.step(gather(task.train.x, i), gather(task.train.y, i), 0.1) for i in batches(order, 16)]
        params, buffers = descent.state()
        return {**params, **buffers}, torch.stack(losses)

    good, good_losses = run(False)
    beside, losses = run(True)
    for name_, tensor in good.items():
        assert torch.equal(tensor[[0, 2]], beside[name_][[0, 2]]), name_
    assert torch.equal(good_losses[:, [0, 2]], losses[:, [0, 2]])
    assert bool(torch.isnan(losses[:, 1]).all())


def test_losses_of_members_are_not_mixed():
    logits = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 3, (4, 5), generator=torch.Generator().manual_seed(1))
    losses = cross_entropy(logits, labels)
    for member in range(4):
        alone = torch.nn.functional.cross_entropy(logits[member], labels[member])
        torch.testing.assert_close(losses[member], alone)
        (gradient,) = torch.autograd.grad(losses[member], logits, retain_graph=True)
        others = [m for m in range(4) if m != member]
        assert not gradient[others].any()


@pytest.mark.parametrize("layout", ["examples first", "classes first"])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_the_written_out_gradient_is_that_of_autograd(layout, scale):
    g = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(3, 7, 5, generator=g, dtype=torch.float64)
    if layout == "classes first":
        logits = logits.transpose(1, 2).contiguous().transpose(1, 2)
    logits.requires_grad_()
    labels = torch.randint(0, 5, (3, 7), generator=g)
    expected = cross_entropy(logits, labels)
    (slope,) = torch.autograd.grad(expected.sum(), logits)
    losses, gradient = cross_entropy_with_gradient(logits.detach(), labels)
    torch.testing.assert_close(losses, expected.detach(), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(gradient, slope, rtol=1e-13, atol=1e-15)
    rough, gradient = cross_entropy_with_gradient(logits.detach().bfloat16(), labels)
    assert rough.dtype == gradient.dtype == torch.float32
    torch.testing.assert_close(rough.double(), expected.detach(), rtol=2e-2, atol=2e-2)


def test_a_step_with_the_loss_given_equals_one_with_the_usual_loss():
    task = small_task("cnn")
    index = torch.arange(16).expand(2, -1)
    states = []
    for loss in (None, cross_entropy):
        for ascend in (False, True):
            descent = Descent(build_network(task), *initialise(task, [1, 2]), Steps(momentum=0.9))
            losses = descent.step(gather(task.train.x, index), gather(task.train.y, index), 0.1, loss, ascend=ascend)
            states.append({**descent.state()[0], "losses": losses})
    assert largest_difference(states[0], states[2]) < 1e-13
    assert largest_difference(states[1], states[3]) < 1e-13
    assert largest_difference(states[0], states[1]) > 1e-3


@pytest.mark.parametrize("name", ["mlp_norm", "resnet"])
def test_an_oracle_never_reads_a_forget_example(name):
    task = small_task(name)
    forget = forget_set(task, 7)
    bad = poisoned(task, forget.indices, 1e300)
    assert equal(
        state_of(train(task, members=3, without=forget, chunk=3)),
        state_of(train(bad, members=3, without=forget, chunk=3)),
    )
    # The same poison is deadly to whoever reads it: the test above can fail.
    one_more = ForgetSet.of(task, forget.indices[1:], name="less", how="one forget example is let back in")
    with pytest.raises(DivergedError, match="all 3 members"):
        train(bad, members=3, without=one_more)


def test_an_oracle_reads_every_retain_example():
    task = small_task("mlp", epochs=1)
    forget = forget_set(task, 40)
    plain = train(task, members=1, without=forget)
    for position in forget.retain:
        changed = train(poisoned(task, [position], 3.0), members=1, without=forget)
        assert not equal(plain.params, changed.params), position


def test_oracles_and_pretrained_members_are_independent_under_the_same_seed():
    task = small_task("mlp")
    forget = forget_set(task)
    start = train(task, members=3, epochs=0)
    oracles = train(task, members=3, without=forget, epochs=0)
    assert not any((start.params[name] == oracles.params[name]).flatten(1).all(1).any() for name in start.params)
    others = train(task, members=3, epochs=0, seed=1)
    assert not equal(start.params, others.params)
    every = torch.cat([e.params["0.weight"] for e in (start, oracles, others)])
    assert len(torch.unique(every.flatten(1), dim=0)) == 9


def test_masks_of_unequal_sizes_and_index_arrays():
    task = small_task("mlp")
    g = np.random.default_rng(0)
    mask = g.random((6, 50)) < np.array([0.3, 0.5, 0.3, 0.9, 0.5, 1.1])[:, None]
    assert len({int(row.sum()) for row in mask}) > 3
    ensemble = train(task, members=6, examples=mask, seed=2)
    assert ensemble.ids == tuple(range(6))
    rows = [np.flatnonzero(row) for row in mask]
    reference = stack([train_one(task, row, member, 2) for member, row in enumerate(rows)])
    assert largest_difference(ensemble.params, reference) < 1e-10
    # The same as shuffled positions, and, for the member that sees everything, the same as no restriction.
    full = train(task, members=6, seed=2)
    torch.testing.assert_close(ensemble.params["0.weight"][5], full.params["0.weight"][5])
    positions = np.stack([g.permutation(50)[:20] for _ in range(3)])
    by_index = train(task, members=3, examples=positions)
    as_mask = np.zeros((3, 50), dtype=bool)
    np.put_along_axis(as_mask, positions, True, axis=1)
    assert (
        largest_difference(by_index.params, train(task, members=3, examples=torch.from_numpy(as_mask)).params) < 1e-10
    )
    reference = stack([train_one(task, np.sort(row), member, 0) for member, row in enumerate(positions)])
    assert largest_difference(by_index.params, reference) < 1e-10


def test_a_forget_set_and_the_mask_without_it_are_the_same_request():
    task = small_task("mlp")
    forget = forget_set(task)
    mask = np.ones((2, 50), dtype=bool)
    mask[:, forget.indices] = False
    assert equal(train(task, members=2, without=forget).params, train(task, members=2, examples=mask).params)


def test_orders_are_permutations_of_the_members_own_examples():
    examples = torch.stack([torch.randperm(40, generator=torch.Generator().manual_seed(m))[:20] for m in range(5)])
    order = epoch_order(examples, [1, 2, 3, 4, 4], 0)
    assert torch.equal(order.sort(1).values, examples.sort(1).values)
    assert not torch.equal(order, epoch_order(examples, [1, 2, 3, 4, 4], 1))
    same = epoch_order(examples[:1].expand(2, -1), [4, 4], 0)
    assert torch.equal(same[0], same[1])
    assert torch.equal(epoch_order(examples[2:3], [3], 7), epoch_order(examples, [1, 2, 3, 4, 5], 7)[2:3])


def test_every_position_of_an_order_is_equally_likely():
    examples = torch.arange(4).expand(6000, -1)
    order = epoch_order(examples, [derive(0, m) for m in range(6000)], 0)
    for position in range(4):
        counts = torch.bincount(order[:, position], minlength=4).double()
        assert float(((counts - 1500) ** 2 / 1500).sum()) < 21.1  # chi-square with 3 degrees of freedom, p = 1e-4


def test_batches_cover_the_order_and_gather_reads_rows():
    order = torch.arange(10).expand(2, -1)
    assert torch.equal(torch.cat(list(batches(order, 4)), 1), order)
    assert [part.shape[1] for part in batches(order, 4, drop_last=True)] == [4, 4]
    data = torch.randn(10, 2, 3)
    index = torch.tensor([[3, 1], [0, 9], [5, 5]])
    assert torch.equal(gather(data, index), data[index])


def test_bfloat16_learns_and_keeps_float32_weights():
    task = small_task("cnn", precision="bfloat16", epochs=6)
    ensemble = train(task, members=3)
    assert all(tensor.dtype == torch.float32 for tensor in ensemble.params.values())
    exact = train(small_task("cnn", precision="float32", epochs=6), members=3)
    x, y = task.train.x, task.train.y
    assert float(ensemble.accuracy(x, y).mean()) > 0.6 > float(train(task, members=3, epochs=0).accuracy(x, y).mean())
    difference = largest_difference(ensemble.params, exact.params)
    assert 1e-6 < difference < 0.3
    vmapped = train(task, members=3, network=build_network(task, "vmap"))
    assert float(vmapped.accuracy(x, y).mean()) > 0.6


def test_float64_data_are_needed_for_float64_training():
    task = small_task("mlp", precision="float32")
    with pytest.raises(InputError, match="same precision"):
        train(task, members=1, recipe=Recipe(precision="float64"))
    other = train(task, members=1, recipe=Recipe(epochs=2, batch_size=10, lr=0.01, peak_epoch=1.0))
    assert other.provenance["specification"]["recipe"]["batch_size"] == 10


def test_frozen_weights_stay_and_the_others_train():
    def model():
        module = mlp()
        module[0].requires_grad_(False)
        return module

    task = small_task("mlp", model=model)
    before, after = train(task, members=2, epochs=0), train(task, members=2)
    assert torch.equal(before.params["0.weight"], after.params["0.weight"])
    assert not torch.equal(before.params["2.weight"], after.params["2.weight"])
    reference = stack([train_one(task, np.arange(50), member, 0) for member in range(2)])
    assert largest_difference(after.params, reference) < 1e-10


def test_progress_counts_every_member_epoch_once():
    task, seen = small_task("mlp"), []
    train(task, members=5, chunk=2, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (15, 15)
    assert all(total == 15 for _, total in seen)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    mask = np.ones((3, 50), dtype=bool)
    mask[0, :5] = False
    seen.clear()
    train(task, members=3, examples=mask, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (9, 9)


def test_a_learning_model_learns():
    task = small_task("mlp", epochs=20)
    ensemble = train(task, members=4)
    x, y = task.train.x, task.train.y
    assert float(ensemble.accuracy(x, y).min()) > 0.75  # three classes: chance is 0.33
    assert float(ensemble.margins(x, y).mean()) > 1


BAD = [
    ({"members": 0}, "members = 0"),
    ({"members": 2.0}, "members = 2.0"),
    ({"members": 2, "first": -1}, "first = -1"),
    ({"members": 2, "chunk": 0}, "chunk = 0"),
    ({"members": 2, "epochs": -1}, "epochs = -1"),
    ({"members": 2, "epochs": 4}, "epochs = 4"),
    ({"members": 2, "examples": np.zeros((3, 5), dtype=int)}, r"expected \(2, k\) positions"),
    ({"members": 2, "examples": np.zeros(5, dtype=int)}, r"expected \(2, k\) positions"),
    ({"members": 2, "examples": np.zeros((2, 5))}, "dtype float64"),
    ({"members": 2, "examples": np.ones((2, 49), dtype=bool)}, "mask"),
    ({"members": 2, "examples": np.array([[0, 1], [0, 50]])}, "0 to 50"),
    ({"members": 2, "examples": np.array([[0, 1], [-1, 3]])}, "-1"),
    ({"members": 2, "examples": np.array([[0, 1], [7, 7]])}, "twice for member 1"),
    ({"members": 2, "examples": np.array([[True] * 50, [False] * 50])}, "no examples"),
    ({"members": 2, "examples": [[0, 1], [0]]}, r"examples is a list, .* give a mask of shape"),
    ({"members": 2, "without": [1, 2]}, "without is a list, expected an expunge.ForgetSet"),
    ({"members": 2, "seed": "x"}, "seed = 'x', expected a whole number"),
    ({"members": 2, "recipe": {"lr": 0.1}}, "recipe is a dict, expected an expunge.Recipe"),
    ({"members": 2, "workers": "all"}, "workers = 'all'"),
    ({"members": 2, "device": "tpu"}, "device = 'tpu'"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=lambda v: v if isinstance(v, str) else "")
def test_requests_that_cannot_be_carried_out_are_refused_before_training(options, message):
    seen = []
    with pytest.raises(InputError, match=message):
        train(small_task("mlp"), progress=lambda *now: seen.append(now), **options)
    assert not seen


def test_a_name_is_no_task():
    with pytest.raises(InputError, match=r"task is the text 'digits', expected an expunge\.Task, such as"):
        train("digits")


def test_a_forget_set_of_another_task_or_with_examples_is_refused():
    task = small_task("mlp")
    forget = forget_set(small_task("mlp", n=60))
    with pytest.raises(InputError, match="made for 60 training examples"):
        train(task, members=1, without=forget)
    with pytest.raises(InputError, match="expected one of them"):
        train(task, members=1, without=forget_set(task), examples=np.zeros((1, 3), dtype=int))


@pytest.mark.parametrize("model", ["mlp_norm", "own-statistics"])
@pytest.mark.parametrize(
    ("n", "batch", "last", "fails"),
    [(49, 16, "keep", True), (49, 16, "drop", False), (50, 1, "keep", True), (48, 16, "keep", False)],
)
def test_a_batch_of_one_under_batch_norm_is_refused_early(model, n, batch, last, fails):
    def without_running():
        return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3))

    factory = without_running if model == "own-statistics" else None
    task = small_task("mlp_norm", n=n, batch_size=batch, last_batch=last, model=factory)
    if fails:
        with pytest.raises(InputError, match="leave a batch of 1"):
            train(task, members=2)
    else:
        train(task, members=2)


def test_every_member_diverging_is_an_error_and_some_diverging_is_not():
    with pytest.raises(DivergedError, match="lower the recipe's lr"):
        train(small_task("mlp", lr=3e38), members=2)
    x, y = blobs((6,), 50, 1)
    x[0] = 1e300
    task = Task(name="one bad", train=(x, y), validation=(x / 2, y), model=mlp, recipe=small_task().recipe, classes=3)
    mask = np.ones((3, 50), dtype=bool)
    mask[:2, 0] = False
    ensemble = train(task, members=3, examples=mask)
    assert ensemble.finite().tolist() == [True, True, False]
