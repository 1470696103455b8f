"""Files of a run stay in its folder, whatever a record or a name says; what cannot be written leaves nothing."""

from __future__ import annotations

import pytest

from expunge.core import DamagedFileError, ForgetSet, InputError
from expunge.core.schema import inside, write_atomically
from expunge.papers.ascent_fails_to_forget import theory_study
from expunge.papers.ascent_fails_to_forget.finding import TheoryRecord
from expunge.papers.ascent_fails_to_forget.report.theory import draw
from reference.problems import small_task


@pytest.mark.parametrize("name", ["a", "a/b.safetensors", "a/../b", "[/x]"])
def test_a_path_below_the_folder_passes(tmp_path, name):
    assert inside(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/passwd", "link/a", "a\0b", "link"])
def test_a_path_that_leads_out_is_refused(tmp_path, name):
    run = tmp_path / "run"
    run.mkdir()
    (run / "link").symlink_to(tmp_path)
    with pytest.raises(DamagedFileError, match="leads out of"):
        inside(run, name)


def test_a_report_is_never_written_outside_of_the_run(tmp_path):
    out, victim = tmp_path / "run", tmp_path / "victim.png"
    theory_study.run(["app-j"], out)
    record = TheoryRecord.load(out)
    victim.write_text("precious")
    (out / "figures").symlink_to(tmp_path)
    with pytest.raises(DamagedFileError, match="leads out of"):
        draw(out)
    (out / "figures").unlink()
    record.findings[0].arrays = "../arrays.safetensors"
    record.save(out)
    with pytest.raises(DamagedFileError, match="leads out of"):
        draw(out)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("name", ["", " ", "../../up", "/abs", "a//b", "a/.", "..", "a\0b", "a\nb", "x" * 200, None, 3])
def test_names_of_forget_sets_are_part_of_a_path(name):
    with pytest.raises(InputError, match="a forget set is named"):
        ForgetSet.of(small_task(), [1, 2], name=name, how="by hand")


@pytest.mark.parametrize("name", ["random-70", "my set/1", "class 3, part", "[/x]", "...", "ü"])
def test_other_names_pass(name):
    assert ForgetSet.of(small_task(), [1, 2], name=name, how="by hand").name == name


def test_what_cannot_be_written_is_named_and_leaves_nothing(tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(InputError, match=r"report\.html cannot be written"):
        write_atomically(tmp_path / "report.html", b"page")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
