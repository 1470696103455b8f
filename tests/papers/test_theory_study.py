import functools

import pytest

from expunge.core import DamagedFileError, InputError
from expunge.papers.ascent_fails_to_forget import theory_study as theory
from expunge.papers.ascent_fails_to_forget.finding import TheoryRecord, load_arrays
from expunge.papers.ascent_fails_to_forget.report.theory import draw
from expunge.papers.ascent_fails_to_forget.report.theory_figures import FIGURES

FAST = ("corollary-1", "alternating", "exact-oracles", "skew")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return theory.run(FAST, tmp_path_factory.mktemp("theory"))


def test_every_result_has_a_figure():
    assert set(FIGURES) == set(theory.STUDIES)


def test_record_holds_what_was_found(folder):
    record = TheoryRecord.load(folder)
    assert {finding.name for finding in record.findings} == set(FAST)
    for finding in record.findings:
        assert finding.verdict != "does not hold", finding.sentence
        assert load_arrays(folder, finding)
        assert all(len(row) == len(table.columns) for table in finding.tables for row in table.rows)


def test_page_is_self_contained(folder):
    first = draw(folder).read_text()
    assert all(name in first for name in FAST)
    assert "<script" not in first
    assert 'src="http' not in first
    assert 'href="http' not in first


def test_drawing_is_repeatable(tmp_path):
    theory.run(["app-j"], tmp_path)
    pages = [draw(tmp_path).read_bytes() for _ in range(2)]
    assert pages[0] == pages[1]


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(InputError, match="lemma-99"):
        theory.run(["lemma-99"], tmp_path)
    with pytest.raises(InputError, match=r"theory\.json"):
        draw(tmp_path)


def test_damaged_arrays_are_named(folder, tmp_path):
    record = TheoryRecord.load(folder)
    record.save(tmp_path)
    bad = tmp_path / record.findings[0].arrays
    bad.parent.mkdir()
    bad.write_bytes(b"\x08\x00")
    with pytest.raises(DamagedFileError, match=bad.name):
        draw(tmp_path)


def test_a_run_is_not_written_over_and_goes_on_with_resume(tmp_path):
    out = tmp_path / "run"
    theory.run(["app-j"], out)
    draw(out)
    with pytest.raises(InputError, match=r"holds a run already; add --resume .* or choose another --out"):
        theory.run(["app-j"], out)
    for names, seed in ((["corollary-1"], 0), (["app-j"], 1)):
        with pytest.raises(InputError, match=r"holds another theory run .*repeat its command"):
            theory.run(names, out, seed=seed, resume=True)
    before = (out / TheoryRecord.FILE).read_bytes()
    theory.run("app-j", out, resume=True)
    assert (out / TheoryRecord.FILE).read_bytes() == before


def test_the_run_of_another_study_is_left_alone(tmp_path):
    (tmp_path / "record.json").write_text("{}")
    (tmp_path / "report.html").write_text("the page of an audit")
    for resume in (False, True):
        with pytest.raises(InputError, match=r"holds the run of another study \(record\.json\)"):
            theory.run(["app-j"], tmp_path, resume=resume)
    assert (tmp_path / "report.html").read_text() == "the page of an audit"


def test_a_run_that_was_stopped_keeps_what_is_finished(tmp_path, monkeypatch):
    checks, seen = dict(theory.STUDIES), []
    stopped = ["app-j"]

    def check(name, seed):
        if name in stopped:
            raise KeyboardInterrupt
        seen.append(name)
        return checks[name](seed)

    for name in checks:
        monkeypatch.setitem(theory.STUDIES, name, functools.partial(check, name))
    names = ["app-j", "corollary-1"]
    with pytest.raises(KeyboardInterrupt):
        theory.run(names, tmp_path)
    record = TheoryRecord.load(tmp_path)
    assert ([finding.name for finding in record.findings], record.status) == (["corollary-1"], "running")
    stopped.clear()
    theory.run(names, tmp_path, resume=True)
    record = TheoryRecord.load(tmp_path)
    assert ([finding.name for finding in record.findings], record.status) == (["corollary-1", "app-j"], "complete")
    (tmp_path / record.findings[0].arrays).write_bytes(b"\x08\x00")
    theory.run(names, tmp_path, resume=True)
    assert seen == ["corollary-1", "app-j", "corollary-1"]
    assert [finding.name for finding in TheoryRecord.load(tmp_path).findings] == ["corollary-1", "app-j"]
    assert draw(tmp_path).is_file()


def test_the_command_of_a_run_names_its_seed(tmp_path):
    record = TheoryRecord.load(theory.run(["app-j"], tmp_path, seed=3))
    assert record.command == f"expunge theory app-j --seed 3 --out {tmp_path}"


@pytest.mark.slow
def test_fast_lemmas_and_basins_hold_as_documented(tmp_path):
    verdicts = {"lemmas-2-5": "holds", "fig-5": "holds under conditions"}
    record = TheoryRecord.load(theory.run(list(verdicts), tmp_path))
    assert {finding.name: finding.verdict for finding in record.findings} == verdicts
