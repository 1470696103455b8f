"""Pipes and names that no file has, wherever a file is opened: refused at once, never waited on."""

from __future__ import annotations

import errno
import os

import pytest

import expunge as ex
from expunge.boundary import guarded
from expunge.core import InputError
from expunge.core.locks import hold, open_lock
from expunge.ensembles.store import Shelf
from expunge.studies.evidence.archive import Archive
from expunge.studies.evidence.bundle import read_salt
from expunge.studies.request.ledger_file import LedgerFile
from reference.problems import small_task

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")


def pipe(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    return path


def test_a_lock_is_a_file_that_keeps_what_it_holds(tmp_path):
    path = tmp_path / "lock"
    path.write_text("[1, 2]")
    with open_lock(path) as file:
        assert hold(file, wait=False)
        assert file.read() == "[1, 2]"
        with open_lock(path) as other:
            assert not hold(other, wait=False)
    with pytest.raises(InputError, match="is a pipe or a device, expected a file that expunge makes itself"):
        open_lock(pipe(tmp_path / "pipe"))
    with pytest.raises(InputError, match="is a pipe or a device"):
        open_lock(type(path)(os.devnull))
    with pytest.raises(IsADirectoryError):
        open_lock(tmp_path)


@pytest.mark.parametrize("name", ["lock", "manifest.json", "claim-00000-00001-0"])
def test_a_pipe_in_a_store_is_refused(tmp_path, name):
    task = small_task("mlp")
    ex.train(task, members=2, store=tmp_path)
    (folder,) = tmp_path.iterdir()
    (folder / name).unlink(missing_ok=True)
    pipe(folder / name)
    with pytest.raises(InputError, match="is a pipe or a device"):
        ex.train(task, members=3, store=tmp_path)


def test_a_pipe_where_a_claim_would_be_is_refused(tmp_path, monkeypatch):
    shelf = Shelf(tmp_path, {"a": 1})
    made = []
    monkeypatch.setattr(Shelf, "_claimed", lambda self: made.append(1) or set())
    monkeypatch.setattr("expunge.ensembles.store.digest_json", lambda value: "0" * 20)
    pipe(shelf.folder / "claim-00000-00001-00000000")
    with pytest.raises(InputError, match="is a pipe or a device"), shelf.claim([0, 1]):
        pass
    assert made


def test_pipes_in_place_of_a_ledgers_lock_a_bundle_and_a_salt(tmp_path):
    pipe(tmp_path / "lock")
    with pytest.raises(InputError, match="is a pipe or a device"), LedgerFile(tmp_path).alone():
        pass
    for read in (Archive, read_salt):
        path = tmp_path / read.__name__
        with pytest.raises(InputError, match="it is a pipe or a device, not a file"):
            read(pipe(path))


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.ELOOP])
def test_a_name_that_no_file_has_is_one_line(number, capsys):
    def work():
        raise OSError(number, os.strerror(number), "x" * 300)

    with pytest.raises(SystemExit) as ended:
        guarded(work, resumable=False)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: xxx")
    assert said.count("\n") == 1
    assert said.endswith(f": {os.strerror(number)}; choose another name.\n")
