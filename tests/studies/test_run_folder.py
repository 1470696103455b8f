"""The folder of a run: what is refused before anything is computed, and that a refusal leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from expunge.core import InputError
from expunge.core.schema import RECORDS
from expunge.studies.run.run_folder import check_folder


@pytest.mark.parametrize("parts", [("new",), ("runs", "deep", "new")])
def test_a_new_folder_passes_and_nothing_is_left_of_the_attempt(tmp_path, parts):
    check_folder(tmp_path.joinpath(*parts), "record.json", resume=False)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_passes_and_stays_empty(tmp_path):
    check_folder(tmp_path, "record.json", resume=False)
    assert list(tmp_path.iterdir()) == []


def test_only_what_was_made_is_removed(tmp_path):
    (tmp_path / "runs").mkdir()
    check_folder(tmp_path / "runs" / "new", "record.json", resume=False)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.parametrize("resume", [False, True])
def test_a_file_in_the_way_is_named(tmp_path, resume):
    (tmp_path / "good.py").touch()
    for out in (tmp_path / "good.py", tmp_path / "good.py" / "x", tmp_path / "good.py" / "x" / "y"):
        with pytest.raises(InputError, match=r"good\.py is a file, expected a folder; choose another --out"):
            check_folder(out, "record.json", resume)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that takes no folders")
def test_a_place_where_no_folder_can_be_made_is_refused():
    with pytest.raises(InputError, match=r"/proc/xx cannot be written to .*choose another --out"):
        check_folder(Path("/proc/xx"), "record.json", resume=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_without_the_right_to_write_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match="cannot be written to"):
            check_folder(tmp_path, "record.json", resume=False)
    finally:
        tmp_path.chmod(0o700)


def test_a_full_disk_is_refused(tmp_path, monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("expunge.studies.run.run_folder.tempfile.TemporaryFile", full)
    with pytest.raises(InputError, match="No space left on device"):
        check_folder(tmp_path / "new", "record.json", resume=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", RECORDS)
@pytest.mark.parametrize("other", RECORDS)
@pytest.mark.parametrize("resume", [False, True])
def test_studies_do_not_write_over_one_another(tmp_path, file, other, resume):
    (tmp_path / other).write_text("{}")
    together = {file, other} == {"record.json", "forecast.json"}
    if resume and (file == other or together):
        check_folder(tmp_path, file, resume)
        return
    message = "holds a run already" if file == other else "is not empty" if together else "run of another study"
    with pytest.raises(InputError, match=message):
        check_folder(tmp_path, file, resume)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["audit", "--out", "good.py/x"], "error: good.py is a file"),
        (["audit", "--device", "tpu"], "error: device = 'tpu', expected one of: auto, cpu, cuda, cuda:NUMBER"),
        (["theory", "app-j", "--out", "good.py"], "error: good.py is a file"),
    ],
)
def test_the_command_line_says_it_in_one_line(tmp_path, words, message, shell):
    (tmp_path / "good.py").touch()
    done = shell(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["good.py"]
