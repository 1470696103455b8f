"""Files of a run stay in its folder, whatever a record or a name says; what cannot be written leaves nothing."""

from __future__ import annotations

import os
import re
import threading

import pytest
import torch

from expunge.core import DamagedFileError, ForgetSet, InputError
from expunge.core.files import WRITING, write_atomically
from expunge.core.schema import inside
from expunge.ensembles import build_network, train
from expunge.papers.ascent_fails_to_forget import theory_study
from expunge.papers.ascent_fails_to_forget.finding import TheoryRecord
from expunge.papers.ascent_fails_to_forget.report.theory import draw
from expunge.studies.run.run_folder import check_folder
from reference.problems import small_task

if os.name == "posix":
    import resource


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


def test_a_record_that_is_a_link_to_elsewhere_is_not_read(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "secret.json").write_text("{}")
    (tmp_path / "run" / "theory.json").symlink_to(tmp_path / "secret.json")
    for path in (tmp_path / "run", tmp_path / "run" / "theory.json"):
        with pytest.raises(DamagedFileError, match=r"'theory.json' leads out of .*run"):
            TheoryRecord.load(path)


def test_the_page_of_a_theory_run_may_run_no_script(tmp_path):
    theory_study.run(["app-j"], tmp_path)
    page = draw(tmp_path).read_text()
    policy = page.partition('<meta http-equiv="Content-Security-Policy" content="')[2].partition('"')[0]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


def limited(work, kind, limit):
    """Do something in a fork that has little of what the system gives; return what it says."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            resource.setrlimit(kind, (limit, limit))
            work()
            os.write(writer, b"done")
        except InputError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    return os.read(reader, 999).decode()


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_a_file_over_the_limit_is_named_and_leaves_the_old_one(tmp_path):
    path = tmp_path / "margins" / "a"
    write_atomically(path, b"old")
    said = limited(lambda: write_atomically(path, b"x" * 5000), resource.RLIMIT_FSIZE, 4000)
    assert re.fullmatch(r".*margins/a cannot be written \(File too large\); make room for it, then go on\.", said)
    assert [file.name for file in path.parent.iterdir()] == ["a"]
    assert path.read_bytes() == b"old"


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_a_training_that_ran_out_of_room_goes_on_with_the_same_numbers(tmp_path):
    task = small_task("mlp", precision="float32")
    network = build_network(task)
    options = {"members": 6, "chunk": 2, "network": network}
    said = limited(lambda: train(task, store=tmp_path, workers=1, **options), resource.RLIMIT_FSIZE, 1000)
    assert "cannot be written (File too large); make room" in said
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part") or path.name.startswith("claim")]
    one, other = train(task, store=tmp_path, **options), train(task, **options)
    assert all(torch.equal(one.params[name], other.params[name]) for name in one.params)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError])
def test_whatever_ends_a_write_leaves_nothing_of_it(tmp_path, monkeypatch, kind):
    def fails(_file):
        raise kind

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(kind):
        write_atomically(tmp_path / "a", b"x")
    assert not list(tmp_path.iterdir())
    assert not WRITING


def test_nothing_is_written_through_a_link_that_lies_where_the_temporary_file_goes(tmp_path):
    run, victim = tmp_path / "run", tmp_path / "victim"
    run.mkdir()
    victim.write_text("precious")
    (run / f".page.{os.getpid()}.{threading.get_ident()}.part").symlink_to(victim)
    write_atomically(run / "page", b"new")
    assert victim.read_text() == "precious"
    assert [path.name for path in run.iterdir()] == ["page"]


@pytest.mark.parametrize("name", ["parts", "margins"])
def test_a_file_where_a_folder_of_the_run_should_be_is_named(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(InputError, match=f"{name} is a file, expected a folder; move it away"):
        check_folder(tmp_path, "record.json", True)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/")
    with pytest.raises(DamagedFileError, match=f"'{name}' leads out of"):
        check_folder(tmp_path, "record.json", True)


def test_what_cannot_be_written_is_named_and_leaves_nothing(tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(InputError, match=r"report\.html cannot be written"):
        write_atomically(tmp_path / "report.html", b"page")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
