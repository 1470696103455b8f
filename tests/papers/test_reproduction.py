"""The paper whole: its items, their forget sets and tables, resuming, refusing, and the page."""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from expunge.core import DamagedFileError, InputError
from expunge.core.seeds import derive
from expunge.dependence import Components
from expunge.methods import CertifiedRemoval, GradientAscent, Rewind
from expunge.methods.problem import Problem
from expunge.methods.unlearning import unlearn
from expunge.metrics.klom import klom
from expunge.papers.ascent_fails_to_forget.finding import Table
from expunge.papers.ascent_fails_to_forget.report import reproduction as report
from expunge.papers.ascent_fails_to_forget.reproduction import data, grid, paper, plan, sets, study
from expunge.papers.ascent_fails_to_forget.reproduction.item import Found, Item
from expunge.papers.ascent_fails_to_forget.reproduction.items import (
    batch_norm,
    promising,
    published_table,
    scrub,
    table_1,
)
from expunge.papers.ascent_fails_to_forget.reproduction.items import klom as klom_item
from expunge.papers.ascent_fails_to_forget.reproduction.names import ITEMS
from expunge.papers.ascent_fails_to_forget.reproduction.presets import PAPER_GRID, PRESETS, SHARES, Images
from expunge.papers.ascent_fails_to_forget.reproduction.probe import Probe
from expunge.papers.ascent_fails_to_forget.reproduction.record import (
    Chart,
    ItemRecord,
    Panel,
    ReproductionRecord,
    Series,
)
from expunge.tasks import digits, logistic

DIGITS = Images("digits", "small_cnn", (2, 4), epochs=1, batch_size=128, lr=0.2, train=200)
SMALL = replace(
    PRESETS["tiny"],
    figures=DIGITS,
    tables=(DIGITS,),
    shares=(0.01, 0.1),
    table_members=20,
    members=20,
    subsets=20,
    grid=replace(PRESETS["tiny"].grid, ascent_rates=(5e-2,), ascent_stop=2, joint_rates=(), joint_stop=1),
    sets=(1,),
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "PRESETS", {**PRESETS, "tiny": SMALL})
    monkeypatch.setattr(plan, "PRESETS", {**PRESETS, "tiny": SMALL})
    monkeypatch.setattr(grid, "UPWARD_JOINT", ())


def findings(record: ReproductionRecord) -> list[dict[str, Any]]:
    return [each.model_dump(mode="json", exclude={"seconds"}) for each in record.items]


def test_every_row_of_the_list_has_an_item_and_every_item_says_what_it_is() -> None:
    items = study.wanted(())
    assert list(items) == list(ITEMS)
    rows = {row for each in items.values() for row in each.rows}
    assert rows >= {f"P{number}" for number in range(1, 19)}
    for each in items.values():
        assert each.title
        assert each.claim.endswith((".", "?"))
    assert set(paper()["presets"]) == set(PRESETS)


def test_presets_hold_the_papers_grid_and_sizes() -> None:
    preset = PRESETS["paper"]
    assert (preset.figures.network, preset.figures.widths, preset.figures.epochs) == ("resnet9", (64,), 24)
    assert (preset.figures.batch_size, preset.figures.lr, preset.members) == (512, 0.4, 100)
    assert preset.sets == tuple(range(1, 10))
    assert preset.grid is PAPER_GRID
    recipe = data.load(DIGITS, None).recipe
    runs = grid.methods(PAPER_GRID, replace(recipe, lr=grid.PEAK))
    ascents = [run for run in runs if run.name == "gradient_ascent"]
    rates = [1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 1e-2, 5e-2, 0.2]
    assert [run.options()["lr"] for run in ascents] == pytest.approx(rates, rel=1e-12)
    joint = [run for run in runs if run.name == "gradient_descent_ascent"]
    assert {(run.options()["ascent_epochs"], run.options()["forget_batch_size"]) for run in joint} == {
        (3, 32), (3, 64), (5, 32), (5, 64)
    }  # fmt: skip
    assert all(run.options()["batch_size"] == 64 and run.options()["epochs"] == 10 for run in joint)
    half = grid.ascents(PAPER_GRID, replace(recipe, lr=grid.PEAK / 2))
    assert [run.name for run in half[:2]] == ["early_stopped_retrain", "fine_tune"]
    assert [run.options()["lr"] for run in half[2:]] == pytest.approx([rate / 2 for rate in rates], rel=1e-12)
    assert grid.upward(0.2, "gradient_ascent", PAPER_GRID, replace(recipe, lr=grid.PEAK))
    assert not grid.upward(0.05, "gradient_ascent", PAPER_GRID, replace(recipe, lr=grid.PEAK))
    assert SHARES == (12 / 60_000, 120 / 60_000, 6_000 / 60_000)


def test_the_nine_sets_have_the_papers_sizes_and_calibration_sets_of_their_kind() -> None:
    assert [sets.size_of(number, 50_000) for number in sets.NINE] == [10, 100, 500] * 3
    task = digits()
    scores = np.random.default_rng(0).normal(size=(len(task.train), 2))
    made = Components(scores, np.array([0.1, 0.05]))
    found = {number: sets.choice(number, task, 0, lambda: made, Path) for number in sets.NINE}
    for number, choice in found.items():
        assert choice.forget.name == f"set-{number}"
        assert len(choice.forget) == len(choice.calibration) == sets.size_of(number, len(task.train))
        assert not set(choice.forget.indices) & set(choice.calibration.indices)
    order = np.argsort(-scores[:, 1])
    assert set(found["7"].forget.indices) == set(order[:10])
    assert set(found["8"].calibration.indices) == set(order[20:40])
    assert set(found["9"].forget.indices) == {*order[:20], *order[-20:]}
    assert sets.read_sets(["9", "1", "published-3"]) == ("1", "9", "published-3")
    with pytest.raises(InputError, match="forget set '10' is unknown, expected 1 to 9"):
        sets.read_sets(["10"])
    with pytest.raises(InputError, match="rows of all 50,000 images of CIFAR-10"):
        sets.choice("published-2", task, 0, lambda: made, Path)


def test_what_two_sets_of_models_of_one_kind_read_is_known() -> None:
    # Golden values: 20 cells of equal width, shares plus 1e-5, normal margins of one law.
    assert klom_item.floors(100, 0)["published (EasyDUB)"] == pytest.approx((0.34, 0.66), rel=0.12)
    assert klom_item.floors(20, 0)["published (EasyDUB)"] == pytest.approx((3.0, 5.0), rel=0.12)


def test_table_1_reads_what_is_apart_and_the_floor_where_nothing_is() -> None:
    task, rng = digits(), np.random.default_rng(0)
    forget = data_forget(task, 30)
    n, every = len(task.train), len(task.train) + len(task.validation)
    sides = {role: rng.normal(size=(60, every)) for role in ("pretrained", "oracle", "held-out oracle")}
    nothing = table_1.read(sides, forget, n, 0)
    assert nothing["told"] == 0
    for split in ("forget", "retain", "validation"):
        assert nothing[split]["value"] == pytest.approx(nothing[split]["floor"], abs=0.15)
    moved = dict(sides, pretrained=sides["pretrained"].copy())
    moved["pretrained"][:, forget.indices] += 2.0
    apart = table_1.read(moved, forget, n, 0)
    assert apart["told"] == 30
    assert apart["forget"]["low"] > apart["forget"]["floor_high"]
    assert apart["retain"] == nothing["retain"]
    assert apart["validation"] == nothing["validation"]
    values = klom(moved["pretrained"][:, forget.indices], sides["oracle"][:, forget.indices], variant="easydub")
    assert apart["public"]["forget"] == pytest.approx(np.percentile(values, 95))
    assert [table_1.size_of(share, 60_000) for share in SHARES] == [12, 120, 6_000]


def data_forget(task: Any, size: int) -> Any:
    from expunge.tasks import random_forget_set

    return random_forget_set(task, size, seed=0)


def test_a_killed_run_goes_on_and_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only = ("klom", "fig-2", "table-1", "cross-influence")
    folder, whole = study.run("tiny", only=only, out=tmp_path / "whole")
    assert [each.name for each in whole.items] == [name for name in ITEMS if name in only]
    verdicts = {each.name: each.verdict for each in whole.items}
    assert verdicts["cross-influence"] == "not run at this preset"
    assert verdicts["klom"] == "does not hold"  # the floor falls by a quarter from 80 to 100 models
    table = next(each for each in whole.items if each.name == "table-1").tables[0]
    assert len(table.rows) == 6
    fig_2 = next(each for each in whole.items if each.name == "fig-2")
    assert (folder / fig_2.pages["audit of set 1"]).is_file()
    page = report.draw(folder).read_text()
    assert "default-src 'none'" in page
    assert "Table 1" in page
    assert page.count("<figure") == 3

    measured, calls = table_1.measured, []

    def stops(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measured(*given)

    monkeypatch.setattr(table_1, "measured", stops)
    with pytest.raises(KeyboardInterrupt):
        study.run("tiny", only=only, out=tmp_path / "killed")
    report.draw(tmp_path / "killed")
    with pytest.raises(InputError, match="--resume"):
        study.run("tiny", only=only, out=tmp_path / "killed")
    _, again = study.run("tiny", only=only, out=tmp_path / "killed", resume=True)
    assert findings(again) == findings(whole)
    _, more = study.run("tiny", only=("table-1",), out=tmp_path / "killed", resume=True)
    assert findings(more) == findings(whole)  # what was asked for before stays


def public_table(root: Path, **changed: float) -> Path:
    """A table like the benchmark's, with what is known of it: ascent is rate-free but at 5e-2, SCRUB always."""
    lines = [",".join(published_table.COLUMNS)]
    for key in published_table.expected():
        at = key.method, key.forget_set, key.rate
        kept, forget = {"do_nothing": (0.65, 9.0), "ascent_forget": (4.0, 8.5)}.get(key.method, (0.9, 8.0))
        kept += 2.0 * (at[::2] == ("ascent_forget", 5e-2)) + changed.get("ascent", 0.0) * (at[2] == 1e-5)
        kept += changed.get("scrub", 0.0) * (at == ("scrubnew", "7", 5e-3)) * (key.epoch == 10)
        forget = 3.0 if at == ("scrub", "2", 5e-3) else forget + key.rate * (key.method == "scrub")
        values = [kept if "forget" not in name else forget for name in published_table.COLUMNS[6:]]
        numbers = "" if key.rate == 0 else key.rate, key.epoch, key.forget_set, key.ascent_epochs or ""
        lines.append(",".join(map(str, ["cifar10", key.method, *numbers, *values])))
    path = root / "unlearning-bench" / "klom_results.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_public_table_is_read_to_the_digit(tmp_path: Path) -> None:
    cells, _ = published_table.read(public_table(tmp_path / "as-it-is"))
    assert len(cells) == 9 + 9 * 7 * 5 + 2 * 9 * 4 * 3 * 2
    assert {split: max(values) for split, values in published_table.differences(cells).items()} == {
        "forget": 0.0, "retain": 0.0, "validation": 0.0
    }  # fmt: skip
    assert published_table.differences(cells, (1e-5, 5e-2))["retain"] == [2.0] * 45
    assert published_table.unchanged(cells, "scrubnew") == (54, 54)
    assert published_table.unchanged(cells, "scrub") == (0, 54)
    found = published_table.useful(cells, "scrub")
    assert {(key.forget_set, key.rate) for key in found} == {("2", 5e-3)}
    assert len(found) == 6
    assert published_table.useful(cells, "ascent_forget") == []
    _, record = study.run("tiny", only=("published-table",), data=tmp_path / "as-it-is", out=tmp_path / "out")
    assert record.items[0].verdict == "holds under conditions"
    assert "54 of 54" in record.items[0].sentences[1]
    assert "6 of them have the largest rate" in record.items[0].sentences[3]
    other, _ = published_table.read(public_table(tmp_path / "other", ascent=0.5, scrub=1e-12))
    assert published_table.differences(other)["validation"] == [0.5] * 45
    assert published_table.unchanged(other, "scrubnew") == (52, 54)
    _, record = study.run("tiny", only=("published-table",), data=tmp_path / "other", out=tmp_path / "out-other")
    assert record.items[0].verdict == "holds"


def test_without_the_public_table_the_rest_runs_and_a_wrong_one_is_named_first(tmp_path: Path) -> None:
    _, record = study.run("tiny", only=("published-table", "klom"), data=tmp_path, out=tmp_path / "without")
    assert [each.verdict for each in record.items] == ["does not hold", "not run at this preset"]
    assert "data-unlearning-bench" in record.items[1].sentences[0]
    path = public_table(tmp_path)
    whole = path.read_text()
    for wrong, message in (
        (whole[: len(whole) // 2], "expected a number"),
        ("\n".join(whole.splitlines()[:-3]), "lacks 3 of 756 rows, such as SCRUB at rate"),
        (whole.replace("retain_klom_95", "retain"), "has no column 'retain_klom_95'"),
        (whole + whole.splitlines()[-1], "is a second row of SCRUB"),
        (whole.replace(",9.0,", ",nan,", 1), "line 2: forget_klom_95 is 'nan'"),
        ("", "has no column 'dataset'"),
    ):
        path.write_text(wrong)
        with pytest.raises(InputError, match=message):
            study.run("tiny", only=("published-table",), data=tmp_path, out=tmp_path / "wrong")
    path.write_bytes(b"\xff\xfe" + whole.encode("utf-16-le"))
    with pytest.raises(InputError, match="cannot be read as text"):
        study.run("tiny", only=("published-table",), data=tmp_path, out=tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()
    study.run("tiny", only=("klom",), data=tmp_path, out=tmp_path / "not-asked")  # nobody asked for it


def probe(tmp_path: Path) -> Probe:
    context, _ = study.prepare("tiny", ("batch-norm",), (), None, 0, "cpu", tmp_path)
    return Probe(context, DIGITS, "2", "figures")


def same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_at_rate_0_only_updated_statistics_move(tmp_path: Path) -> None:
    at = probe(tmp_path)
    models = at.pretrained
    frozen = batch_norm.change(at, "frozen", 0.0)(models)
    assert same(frozen.params, models.params)
    assert same(frozen.buffers, models.buffers)
    updated = batch_norm.change(at, "updated", 0.0)(models)
    assert same(updated.params, models.params)
    assert not same(updated.buffers, models.buffers)
    # Ten epochs of one batch of all of F: the first layer's mean goes (1 - .9^10) of the way to that of F.
    conv = models.network.template[0]
    key = "1.running_mean"
    for member in (0, 7):
        state = {name: models.params[f"0.{name}"][member] for name, _ in conv.named_parameters()}
        seen = torch.func.functional_call(conv, state, at.task.train.x[at.forget.indices]).mean((0, 2, 3))
        before = models.buffers[key][member]
        torch.testing.assert_close(updated.buffers[key][member], before + (1 - 0.9**10) * (seen - before))
    moved = batch_norm.change(at, "frozen", 1e-2)(models)
    assert not same(moved.params, models.params)
    assert same(moved.buffers, models.buffers)


def test_a_preset_without_norm_gets_one_for_the_items_that_are_about_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = replace(SMALL, figures=replace(DIGITS, norm=None))
    monkeypatch.setattr(study, "PRESETS", {**PRESETS, "tiny": plain})
    context, _ = study.prepare("tiny", ("batch-norm",), (), None, 0, "cpu", tmp_path)
    norm, without = (make(plain.figures) for make in (batch_norm.with_norm, batch_norm.without_norm))
    assert (norm, without) == (DIGITS, plain.figures)
    probes = [batch_norm.probe_of(context, images) for images in (norm, without)]
    assert [each.part for each in probes] == ["norm", "figures"]
    np.testing.assert_array_equal(probes[0].forget.indices, probes[1].forget.indices)
    assert batch_norm.with_norm(DIGITS) == DIGITS
    assert batch_norm.without_norm(DIGITS) == replace(DIGITS, norm=None, lr=DIGITS.lr / 4)


def test_recalibrating_at_the_end_is_what_the_method_does_at_its_last_stop(tmp_path: Path) -> None:
    at = probe(tmp_path)
    method = GradientAscent(lr=1e-2, epochs=batch_norm.EPOCHS, statistics="recalibrated", optimizer="sgd")
    slow = unlearn(at.pretrained, at.task, at.forget, method, seed=derive(0, "batch-norm") % 2**31)
    fast = batch_norm.change(at, "recalibrated", 1e-2)(at.pretrained)
    assert same(fast.params, slow.params)
    for name, tensor in slow.buffers.items():
        torch.testing.assert_close(fast.buffers[name], tensor)


def test_batch_norm_is_told_from_ascent_and_a_killed_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_norm, "RATES", (0.0, 1e-5, 1e-4))
    _, whole = study.run("tiny", only=("batch-norm",), out=tmp_path / "whole")
    item = whole.items[0]
    assert item.verdict == "does not hold"
    rows = {(kind, row[1]): row for kind, row in zip(kinds(item.tables[0].rows), item.tables[0].rows, strict=True)}
    assert rows["frozen", "0"][2:] == rows["pretrained", ""][2:]
    assert rows["no norm", "0"][-1] == rows["frozen", "0"][-1] == "0 / 0 / 0"
    moved = [float(part) for part in str(rows["updated", "0"][-1]).split(" / ")]
    climbed = [float(part) for part in str(rows["updated", "0.0001"][-1]).split(" / ")]
    assert min(moved) > 0.01
    assert climbed == pytest.approx(moved, rel=0.05)

    change, calls = batch_norm.change, []

    def stops(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return change(*given)

    monkeypatch.setattr(batch_norm, "change", stops)
    with pytest.raises(KeyboardInterrupt):
        study.run("tiny", only=("batch-norm",), out=tmp_path / "killed")
    assert len(list((tmp_path / "killed" / "parts").glob("*.part"))) == 5
    _, again = study.run("tiny", only=("batch-norm",), out=tmp_path / "killed", resume=True)
    assert findings(again) == findings(whole)


def test_scrub_as_published_is_the_public_loop_in_which_only_statistics_move(tmp_path: Path) -> None:
    at = probe(tmp_path)
    models = at.pretrained
    method = scrub.AsPublished(lr=0.5, epochs=2, msteps=1, batch_size=64, forget_batch_size=8, optimizer="sgd")
    found = unlearn(models, at.task, at.forget, method, seed=3)
    assert same(found.params, models.params)
    assert not same(found.buffers, models.buffers)
    assert not found.trace.failed_checks
    slower = unlearn(models, at.task, at.forget, replace(method, lr=5e-5), seed=3)
    assert same(slower.buffers, found.buffers)  # bit by bit, over rates 10,000 times apart

    repaired = scrub.Scrub(lr=0.5, epochs=2, msteps=1, batch_size=64, forget_batch_size=8, optimizer="sgd")
    assert not same(unlearn(models, at.task, at.forget, repaired, seed=3).params, models.params)

    # The slow twin: plain PyTorch, a loop over the same batches, with an optimiser on the teacher's parameters.
    problem, member = Problem(models, at.task, at.forget, 3, "scrub"), 4
    teacher, student = models.module(member).eval(), models.module(member).train()
    optimizer = torch.optim.SGD(teacher.parameters(), lr=0.5)
    for epoch in (1, 2):
        batches = list(problem.forget_batches(epoch, 8)) if epoch == 1 else []
        for x, y, _ in batches + list(problem.retain_batches(epoch, 64)):
            outputs = student(x[member])
            with torch.no_grad():
                towards = teacher(x[member])
            loss = torch.nn.functional.kl_div(outputs.log_softmax(1), towards.softmax(1), reduction="batchmean")
            optimizer.zero_grad()
            (loss + torch.nn.functional.cross_entropy(outputs, y[member])).backward()
            optimizer.step()
    for name, tensor in teacher.named_parameters():
        assert torch.equal(tensor, models.params[name][member])
    for name, tensor in student.named_parameters():
        assert torch.equal(tensor, found.params[name][member])
    for name, tensor in student.named_buffers():
        torch.testing.assert_close(tensor, found.buffers[name][member], check_dtype=False)


def test_the_item_on_scrub_says_what_was_tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub, "UPWARD_JOINT", (1e3,))
    _, record = study.run("tiny", only=("scrub-published",), out=tmp_path / "out")
    item = record.items[0]
    assert item.verdict == "holds under conditions"  # no rate of the grid here, and one above it, where it breaks
    assert "the same to the last bit at rates 5e-05 and 0.005" in item.sentences[0]
    assert [row[:2] for row in item.tables[0].rows] == [
        ["floor (other oracles)", ""], ["pretrained", ""], ["as published", "5e-05"], ["as published", "0.005"],
        ["repaired", "1000"],
    ]  # fmt: skip


def test_what_is_named_as_promising_is_audited_with_its_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = data.load(PRESETS["tiny"].figures, None).recipe
    assert promising.kept(recipe) == (5, 8)
    tried = [*promising.of_network(recipe), *promising.of_convex()]
    assert {method.name for method in tried} == set(promising.NAMES)
    monkeypatch.setattr(promising, "of_network", lambda recipe: [Rewind(share=0.5)])
    monkeypatch.setattr(promising, "of_convex", lambda: [CertifiedRemoval(steps=2)])
    pair = tuple(part[:150].numpy() for part in (digits().train.x.flatten(1), digits().train.y))
    monkeypatch.setattr(promising, "logistic", lambda name, noise: logistic(pair, noise=noise))
    folder, record = study.run("tiny", only=("promising",), out=tmp_path / "out")
    item = record.items[0]
    rows = {row[2] or f"{row[0]}, nothing": row for row in item.tables[0].rows}
    # One epoch: half of it, rounded, is the start, and rewinding there is retraining from the same weights.
    assert rows["rewind/share=0.5@1"][3] == "1"
    assert rows["certified_removal/steps=2@1"][-1].startswith("epsilon ")
    assert all((folder / page).is_file() for page in item.pages.values())
    assert len(item.pages) == 2


def test_living_17_goes_the_whole_way_on_made_up_images_and_says_so(tmp_path: Path) -> None:
    _, record = study.run("tiny", only=("living-17",), out=tmp_path / "out")
    item = record.items[0]
    assert item.verdict == "not run at this preset"
    assert "made-up images" in item.sentences[0]
    assert [row[0] for row in item.tables[0].rows] == ["pretrained", "ascent", "floor"]
    _, again = study.run("tiny", only=("living-17",), out=tmp_path / "again")
    assert findings(again) == findings(record)
    assert "ILSVRC2012" in study.item("living-17").absent(PRESETS["cpu"])
    assert study.item("living-17").absent(PRESETS["tiny"]) == ""


def kinds(rows: list[list[Any]]) -> list[str]:
    found: list[str] = []
    for row in rows:
        found.append(row[0] or found[-1])
    return found


def test_what_is_wrong_is_refused_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from expunge.papers.ascent_fails_to_forget.reproduction import context

    def never(*given: Any, **options: Any) -> None:
        raise AssertionError("something was trained")

    monkeypatch.setattr(context, "train", never)
    for given, message in (
        ({"preset": "large"}, "preset"),
        ({"preset": "tiny", "only": ("fig-9",)}, "fig-9"),
        ({"preset": "tiny", "sets": ("0",)}, "expected 1 to 9"),
        ({"preset": "tiny", "sets": ("published-1",), "only": ("fig-3",)}, "rows of all 50,000 images"),
        ({"preset": "cpu"}, "no folder with data was given.*cifar-10-python.tar.gz"),
        ({"preset": "cpu", "only": ("table-1",), "data": tmp_path}, r"holds no MNIST, expected .*MNIST/raw"),
        ({"preset": "tiny", "seed": 1.5}, "seed"),
    ):
        with pytest.raises(InputError, match=message):
            study.run(**given, out=tmp_path / "out")  # type: ignore[arg-type]
    raw = tmp_path / "mnist" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes((0, 0, 8, 3)) + bytes(12))[:20])
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte.*damaged"):
        study.run("cpu", only=("table-1",), data=tmp_path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_plan_says_what_a_run_takes_and_writes_nothing(tmp_path: Path) -> None:
    found = plan.plan("tiny", only=("table-1", "lemma-1", "forget-sets"), out=tmp_path / "out")
    assert set(found.seconds) == {"figures: models and forget sets", "table 1, digits", "theory"}
    assert all(seconds > 0 for seconds in found.seconds.values())
    assert "small CNN 2-4" in str(found)
    found = plan.plan("tiny", only=("batch-norm", "promising"), out=tmp_path / "out")
    assert set(found.seconds) == {"one random set: models", "the same without norm", "what is named as promising"}
    assert "batch-norm" in str(found)
    assert not (tmp_path / "out").exists()


def test_what_was_found_before_stays_when_a_later_start_stops_or_lacks_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [Found("holds", ["Read."]), Found("not run at this preset", ["No data."])]
    toy = Item(("P1",), "A toy", "It claims nothing.", lambda context: answers.pop(0))
    monkeypatch.setattr(klom_item, "TOY", toy, raising=False)
    monkeypatch.setitem(ITEMS, "toy", "klom.TOY")
    folder, first = study.run("tiny", only=("toy",), out=tmp_path / "toy")
    with monkeypatch.context() as stopped:
        stopped.setattr(study, "_checked", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            study.run("tiny", only=("klom",), out=folder, resume=True)
    assert ReproductionRecord.load(folder).items == first.items
    _, again = study.run("tiny", only=("toy",), out=folder, resume=True)
    assert again.items == first.items


def test_a_new_item_is_a_file_and_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = Item(("P1",), "A toy", "It claims nothing.", lambda context: Found("holds", ["Nothing was claimed."]))
    monkeypatch.setattr(klom_item, "TOY", toy, raising=False)
    monkeypatch.setitem(ITEMS, "toy", "klom.TOY")
    folder, record = study.run("tiny", only=("toy",), out=tmp_path / "toy")
    assert record.items[0].sentences == ["Nothing was claimed."]
    assert "A toy" in report.draw(folder).read_text()


def test_the_page_of_a_strangers_record_runs_nothing_and_leads_nowhere(tmp_path: Path) -> None:
    attack = "<script>alert(1)</script>"
    item = ItemRecord(
        name="klom",
        rows=[attack],
        title=attack,
        claim=attack,
        verdict="holds",
        sentences=[attack],
        size=attack,
        tables=[Table(title=attack, columns=[attack], rows=[[attack]])],
        charts=[Chart(caption=attack, panels=[Panel(title=attack, x=attack, y=attack, series=[points(attack)])])],
        pages={attack: "javascript:alert(1)", "up": "../up.html", "root": "/etc/passwd", "inside": "a b/report.html#x"},
    )
    record = ReproductionRecord(
        status="complete", started="2026-01-01T00:00:00+00:00", seconds=1.0, command=attack, request={}, environment={},
        preset="tiny", declared={"x": attack}, items=[item],
    )  # fmt: skip
    record.save(tmp_path)
    page = report.draw(tmp_path).read_text()
    assert "<script" not in page
    assert re.findall(r'href="([^"#][^"]*)"', page) == ["a%20b/report.html#x"]
    content = json.loads((tmp_path / "reproduction.json").read_text())
    content["items"][0]["name"] = "../../up"
    (tmp_path / "reproduction.json").write_text(json.dumps(content))
    with pytest.raises(DamagedFileError, match="name"):
        report.draw(tmp_path)


def points(label: str) -> Series:
    return Series(label=label, x=[1.0, 2.0], y=[1.0, 2.0], low=[0.5, 1.5], high=[1.5, 2.5], mark="line")
