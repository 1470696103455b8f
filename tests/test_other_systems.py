"""The package on a system without forks, POSIX signals and locks, such as Windows, and without the compiled kernels."""

from __future__ import annotations

import os
import subprocess
import sys

WITHOUT = """
import importlib, multiprocessing.context, os, pkgutil, signal, sys, tempfile
import matplotlib.figure, plotly.io, rich.console, sklearn.datasets, torch, typer  # these know their systems themselves

for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
for owner, names in (
    (os, ("fork", "register_at_fork", "sched_getaffinity", "sysconf", "killpg", "getuid", "O_DIRECTORY", "O_NOFOLLOW")),
    (signal, ("SIGHUP", "SIGQUIT", "SIGKILL", "SIGUSR1", "SIGALRM", "SIGCHLD", "pthread_sigmask", "alarm")),
    (multiprocessing.context, ("ForkProcess", "ForkContext", "ForkServerContext")),
):
    for name in names:
        if hasattr(owner, name):
            delattr(owner, name)
sys.platform = "win32"

import expunge
for module in pkgutil.walk_packages(expunge.__path__, "expunge."):
    if not module.name.endswith(("__main__", "_direct")):
        importlib.import_module(module.name)

x = torch.randn(24, 3)
task = expunge.Task(
    name="small", train=(x[:16], (x[:16, 0] > 0).long()), validation=(x[16:], (x[16:, 0] > 0).long()),
    model=lambda: torch.nn.Linear(3, 2), recipe=expunge.Recipe(epochs=1, batch_size=8, lr=0.1, peak_epoch=0),
)
with tempfile.TemporaryDirectory() as folder:
    for reused in (False, True):
        trained = expunge.train(task, members=3, store=folder)
        assert trained.provenance["reused"] is reused
from expunge.ensembles import direct
assert direct.library() is None
print("imported")
sys.platform = "linux"  # for the interpreter's own end
"""


def test_every_module_is_imported_and_members_are_trained_and_kept_without_them() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        capture_output=True,
        text=True,
        env={**os.environ, "EXPUNGE_COMPILED": "0"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "imported\n"
