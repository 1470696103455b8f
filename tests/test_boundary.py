"""The boundary of the command line: signals end it soon, and what nobody foresaw is one line with a number."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import signal
import sys
import tempfile
import time

import pytest
import torch

from expunge.boundary import guarded
from expunge.core import InputError
from expunge.core.children import die_with_parent
from expunge.studies.run.lifecycle import Run
from studies.test_lifecycle import ToyRecord

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks, and sends signals")


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.delenv("EXPUNGE_TRACEBACK", raising=False)


@pytest.fixture
def ended(capsys):
    """Do work behind the boundary; return its exit code and what it says."""

    def run(work, resumable=False):
        with pytest.raises(SystemExit) as end:
            guarded(work, resumable=resumable)
        return end.value.code, capsys.readouterr().err

    return run


def raises(error):
    def work():
        raise error

    return work


def divides():
    return hashlib.new("no such \n thing")


def test_what_a_person_can_correct_is_one_line(ended):
    assert ended(raises(InputError("members = [/x], expected 1."))) == (2, "error: members = [/x], expected 1.\n")


def test_a_fault_is_one_line_with_a_number_and_a_file(ended, tmp_path, monkeypatch):
    code, said = ended(divides)
    assert code == 70
    found = re.fullmatch(
        r"error: ValueError: unsupported hash type no such thing.*\. This is a fault of expunge; "
        r"report it as ([0-9a-f]{8}): the traceback is in (.*)\.txt\.\n",
        said,
    )
    number, file = found.groups()
    (path,) = (tmp_path / "temporary").iterdir()
    assert str(path) == file + ".txt"
    assert path.name == f"fault-{number}.txt"
    assert "in divides" in path.read_text()
    assert ended(divides) == (code, said)
    assert number not in ended(lambda: {}["x"])[1]  # another kind of error
    monkeypatch.setenv("EXPUNGE_TRACEBACK", "1")
    shown = ended(divides)[1]
    assert shown.startswith("Traceback (most recent call last)")
    assert shown.endswith(said)


def test_the_traceback_lies_in_the_folder_of_the_run(ended, tmp_path):
    def work():
        with Run.open(ToyRecord, tmp_path / "run", {}, resume=False, command="toy", device=torch.device("cpu")):
            divides()

    assert "the traceback is in" in ended(work)[1]
    (path,) = (tmp_path / "run").glob("fault-*.txt")
    assert "resume=True goes on there" in path.read_text()
    assert not list((tmp_path / "temporary").iterdir())


def test_where_no_file_can_be_written_the_line_says_how_to_see_the_traceback(ended, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    assert ended(divides)[1].endswith("run it again with EXPUNGE_TRACEBACK=1 for the traceback.\n")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "there is too little memory; take fewer members, .*, then add --resume"),
        (torch.OutOfMemoryError("CUDA"), "there is too little memory"),
        (OSError(errno.ENOSPC, "No space left on device", "out/a"), "out/a: No space left on device; make room, then"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "x: Permission denied; make it accessible, then"),
    ],
    ids=["memory", "memory of a GPU", "full disk", "no permission"],
)
def test_what_the_machine_lacks_is_no_fault(ended, error, line):
    code, said = ended(raises(error), resumable=True)
    assert code == 2
    assert re.match(f"error: {line}", said)
    assert said.count("\n") == 1


def test_memory_that_pytorch_cannot_have_is_named(ended):
    assert "there is too little memory" in ended(lambda: torch.empty(2**50))[1]


def loops():
    while True:
        pass


def swallows():
    while True:
        try:  # noqa: SIM105
            time.sleep(0.01)
        except BaseException:
            pass


def computes():
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # half an hour


def in_a_fork(work, told=None):
    """Do work behind the boundary in a fork; return it, and where its error stream comes out, once it is at it."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            die_with_parent()
            os.dup2(writer, 2)
            if told is not None:
                signal.signal(told, signal.SIG_IGN)
            guarded(lambda: (os.write(2, b"at it"), work()), resumable=True)
        finally:
            os._exit(99)
    os.close(writer)
    assert os.read(reader, 5) == b"at it"
    return child, reader


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("work", [loops, swallows, computes])
def test_a_signal_ends_it_soon_and_names_resume(work, number):
    child, said = in_a_fork(work)
    began = time.monotonic()
    os.kill(child, number)
    _, status = os.waitpid(child, 0)
    assert time.monotonic() - began < 60  # two seconds, on a machine that has other work as well
    assert os.waitstatus_to_exitcode(status) == 128 + number
    assert os.read(said, 999).decode().strip() == "stopped; add --resume to go on where it was"


def test_what_is_to_outlive_its_terminal_does():
    child, _ = in_a_fork(loops, told=signal.SIGHUP)
    os.kill(child, signal.SIGHUP)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGTERM


def test_a_fork_of_it_is_ended_by_its_own_signals_only():
    def work():
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            die_with_parent()
            os.write(theirs, b".")
            signal.pause()
        os.read(ours, 1)
        os.kill(child, signal.SIGINT)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) + 10)

    assert os.waitstatus_to_exitcode(os.waitpid(in_a_fork(work)[0], 0)[1]) == 10 - signal.SIGINT


def test_handlers_are_those_of_before_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    guarded(lambda: None, resumable=False)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_nobody_reads_what_is_printed(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "stdout", os.fdopen(writer, "w"))
    guarded(lambda: sys.stdout.write("a page"), resumable=False)
    sys.stdout.close()
