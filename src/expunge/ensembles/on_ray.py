"""Shards on a Ray cluster, each a Ray task with declared processors; what they make lies in the store alone.

    a worker or its machine dies, or runs out of memory     the shard is given to another; a shard that was lost or
                                                            failed `attempts` times is named, with its log
    a shard is refused (`InputError` and the like)          at once, since it would be again
    a shard takes `SLOW` times as long as its like, and     a second one begins it too; who is first writes
      no other is left to be given away
    the one who asked is interrupted or dies                workers keep what they have of their shards, and end

Machines whose versions or vector widths differ from this one's are refused: numbers would depend on who computed what.
"""

from __future__ import annotations

import importlib
import importlib.util
import platform
import secrets
import socket
import statistics
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent import futures
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from expunge.core import DamagedFileError, DivergedError, InputError
from expunge.core.checks import non_negative, whole
from expunge.core.errors import said
from expunge.core.stopping import Pool
from expunge.ensembles import direct
from expunge.ensembles.chunks import one_thread_each, prepare_thread
from expunge.version import __version__

S = TypeVar("S")

REACH_SECONDS = 5.0
"""How long an address may take to answer."""
LOOK_SECONDS = 60.0
"""How long a machine may take to say what it is: a worker starts, and imports PyTorch."""
GRACE_SECONDS = 3.0
"""How long shards that are not waited for any longer may take to keep what they have done."""
SLOW, SLOW_SECONDS = 4.0, 60.0
"""A shard is late after so many times the median of the others, and at least so many seconds."""
FINAL = (InputError, DamagedFileError, DivergedError)
"""Errors that another attempt would meet as well."""


@dataclass(frozen=True)
class RayRunner:
    """Shards as tasks of a Ray cluster.

    Args:
        address: Of the cluster's head, such as `10.0.0.1:6379`, or `auto` for the one that this machine belongs to;
            empty for the one that `RAY_ADDRESS` names, or a new one of this machine's cores.
        cpus: Processors that a shard is given, above 0; it computes on one of them.
        gpus: GPUs that a shard is given, at least 0 (parts of one too).
        attempts: How often a shard may fail, or be lost, before all is given up; at least 1.
    """

    address: str = ""
    cpus: float = 1
    gpus: float = 0
    attempts: int = 3

    def __post_init__(self) -> None:
        """Check what is asked for."""
        if not 0 < self.cpus < 1e6:
            raise InputError(f"cpus = {self.cpus}, expected a number above 0.")
        non_negative(gpus=self.gpus)
        whole(attempts=self.attempts)

    @property
    def device(self) -> torch.device:
        """CUDA where a shard is given a GPU."""
        return torch.device("cuda" if self.gpus else "cpu")

    def check(self, store: Path) -> None:
        """Refuse machines that cannot be reached, have other versions, or do not see the store."""
        ray = self._connected()
        own, nodes = facts(), [node for node in ray.nodes() if node["Alive"]]
        self._check_room(ray)
        store.mkdir(parents=True, exist_ok=True)
        token = store / f"seen-{secrets.token_hex(8)}"
        token.write_text("expunge looks here whether all machines see this folder\n")
        try:
            looks = {self._on(ray, node).remote(str(token)): node for node in nodes}
            ready, late = ray.wait(list(looks), num_returns=len(looks), timeout=LOOK_SECONDS)
            if late:
                raise InputError(f"{_where(looks[late[0]])} of the Ray cluster did not answer in {LOOK_SECONDS:.0f} s.")
            for each in ready:
                self._check_one(own, _where(looks[each]), self._answer(ray, each), store)
        finally:
            token.unlink(missing_ok=True)

    def _answer(self, ray: Any, look: Any) -> dict[str, Any]:
        try:
            found: dict[str, Any] = ray.get(look)
        except Exception as error:
            raise InputError(
                f"a machine of the Ray cluster cannot run expunge ({said(error)}); install expunge {__version__} and "
                "torch there, in the Python that Ray uses."
            ) from error
        return found

    @staticmethod
    def _check_one(own: dict[str, str], where: str, found: dict[str, Any], store: Path) -> None:
        for what, value in own.items():
            if found["facts"].get(what) != value:
                raise InputError(
                    f"{where} of the Ray cluster has {what} {found['facts'].get(what)}, this machine {value}; numbers "
                    "would depend on where they were computed. Use the same everywhere."
                )
        if found["problem"]:
            raise InputError(
                f"{where} of the Ray cluster cannot use the folder {store} ({found['problem']}); expected one that all "
                "machines see and write to, under the same path."
            )

    def _check_room(self, ray: Any) -> None:
        have = ray.cluster_resources()
        for what, key, needed in (("processors", "CPU", self.cpus), ("GPUs", "GPU", self.gpus)):
            if have.get(key, 0) < needed:
                raise InputError(
                    f"a shard needs {needed:g} {what}, and the whole Ray cluster has {have.get(key, 0):g}; start more "
                    "machines, or ask for less."
                )

    def _on(self, ray: Any, node: dict[str, Any]) -> Any:
        strategies = importlib.import_module("ray.util.scheduling_strategies")
        there = strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(_look)

    def _connected(self) -> Any:
        """Return Ray, connected to the cluster."""
        if importlib.util.find_spec("ray") is None:
            raise InputError("runner = ray, and Ray is not installed; run pip install 'expunge[ray]'.")
        ray = importlib.import_module("ray")
        if ray.is_initialized():
            return ray
        _check_reachable(self.address)
        try:
            ray.init(
                address=self.address or None,
                log_to_driver=False,
                logging_level="ERROR",
                configure_logging=False,
                include_dashboard=False if not self.address else None,
            )
        except Exception as error:
            raise InputError(
                f"no Ray cluster at {self.address or 'this machine'} ({said(error)}); start one with ray start --head, "
                "or write --runner ray for one of this machine's cores."
            ) from error
        return ray

    def run(
        self,
        work: Callable[[S], object],
        shards: Sequence[S],
        *,
        name: Callable[[S], str] = str,
        finished: Callable[[S], None] = lambda shard: None,
    ) -> None:
        """Do `work(shard)` for every shard; see `runners.Runner`."""
        ray = self._connected()
        do = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0)(_do)
        held, key = ray.put(_pickled(ray.cloudpickle, work)), secrets.token_hex(8)
        failed: Counter[int] = Counter()
        running: dict[Any, tuple[int, float]] = {}
        taken: list[float] = []
        left = set(range(len(shards)))

        def begin(number: int, *, beside: bool = False) -> None:
            running[do.remote([held], key, shards[number], beside)] = number, time.monotonic()

        try:
            for number in range(len(shards)):
                begin(number)
            while left:
                ready, _ = ray.wait(list(running), timeout=0.2)
                for each in ready:
                    number, began = running.pop(each)
                    error = self._error(ray, each)
                    if number not in left:
                        continue  # another was faster
                    if error is None:
                        left.discard(number)
                        taken.append(time.monotonic() - began)
                        finished(shards[number])
                        continue
                    failed[number] += 1
                    if failed[number] >= self.attempts:
                        raise InputError(
                            f"{name(shards[number])} failed {failed[number]} times on the Ray cluster, last with: "
                            f"{error}. Logs: {_logs(ray)}"
                        )
                    begin(number)
                for number in self._late(running, left, taken):
                    begin(number, beside=True)
        finally:
            self._end(ray, list(running))

    @staticmethod
    def _end(ray: Any, tasks: list[Any]) -> None:
        """Have what still runs keep what it has, and end."""
        for each in tasks:
            with suppress(Exception):
                ray.cancel(each, force=False, recursive=False)
        if tasks:
            with suppress(Exception):
                ray.wait(tasks, num_returns=len(tasks), timeout=GRACE_SECONDS)

    @staticmethod
    def _late(running: dict[Any, tuple[int, float]], left: set[int], taken: list[float]) -> list[int]:
        """Return shards that take much longer than the others did, and run once."""
        times = Counter(number for number, _ in running.values())
        if len(taken) < 3 or len(left) > len(taken):
            return []
        limit = max(SLOW * statistics.median(taken), SLOW_SECONDS)
        now = time.monotonic()
        return [n for n, began in running.values() if n in left and times[n] == 1 and now - began > limit]

    @staticmethod
    def _error(ray: Any, task: Any) -> str | None:
        """Return what went wrong with a task that ended, or None; errors that would come again are raised."""
        try:
            ray.get(task)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, FINAL):
                raise type(cause)(str(cause)) from None
            return said(cause)
        except ray.exceptions.RayError as error:
            return said(error)
        return None


def facts() -> dict[str, str]:
    """Return what the last digits of numbers depend on, besides the work."""
    return {
        "expunge": __version__,
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "torch": torch.__version__,
        "vector units": torch.backends.cpu.get_cpu_capability(),
        "the kernels": direct.describe(),
    }


def _look(token: str) -> dict[str, Any]:
    """Return what a machine is, and what hinders it from using the folder in which a file lies; runs there."""
    path, problem = Path(token), ""
    try:
        if not path.is_file():
            problem = "it does not see what lies there"
        else:
            own = path.with_name(f"{path.name}-{secrets.token_hex(4)}")
            own.write_text("")
            own.unlink()
    except OSError as error:
        problem = error.strerror or str(error)
    return {"facts": facts(), "problem": problem}


_held: dict[str, Callable[[Any], object]] = {}
"""The work that this worker did last, by its key: shards of one job share it."""


def _do(held: list[Any], key: str, shard: Any, beside: bool) -> None:
    """Do one shard, beside another worker that is at it or alone; runs in a worker of the cluster."""
    if key not in _held:
        _held.clear()
        ray = importlib.import_module("ray")
        try:
            _held[key] = ray.cloudpickle.loads(ray.get(held[0]))
        except ImportError as error:
            raise InputError(
                f"a machine of the Ray cluster cannot import {error.name or 'what the task needs'} ({said(error)}); "
                "install it there, in the Python that Ray uses."
            ) from None
    # Ray's interrupt reaches a thread that waits only between two waits.
    with one_thread_each(), Pool(1, prepare_thread) as pool:
        work = _held[key]
        done = pool.submit(getattr(work, "beside", work) if beside else work, shard)
        while not futures.wait([done], timeout=0.2).done:
            pass
        done.result()


def _pickled(cloudpickle: Any, work: Callable[[Any], object]) -> bytes:
    """Return what is to be done as bytes, with the code of a user's own files: machines need not have these."""
    own = {module.__name__: module for module in list(sys.modules.values()) if _is_own(module)}
    with ExitStack() as held:
        for module in own.values():
            cloudpickle.register_pickle_by_value(module)
            held.callback(cloudpickle.unregister_pickle_by_value, module)
        try:
            content: bytes = cloudpickle.dumps(work)
        except Exception as error:
            raise InputError(
                f"the task cannot be sent to other machines ({said(error)}); expected a model, a fit and data that can "
                "be pickled: make what holds a file, a lock or a connection inside the function."
            ) from error
    return content


def _is_own(module: Any) -> bool:
    """Return whether a module is a file of the user's, and not installed."""
    file, name = getattr(module, "__file__", None), getattr(module, "__name__", "")
    if not isinstance(file, str) or sys.modules.get(name) is not module or name.partition(".")[0] == "expunge":
        return False
    places = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return not any(Path(file).is_relative_to(place) for place in places)


def _check_reachable(address: str) -> None:
    """Refuse an address where nobody answers; Ray itself would try for a long time."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not address or address in ("auto", "local"):
        return
    if not host or not port.isdecimal():
        raise InputError(f"runner = 'ray:{address}', expected ray:HOST:PORT such as ray:10.0.0.1:6379, or ray:auto.")
    try:
        socket.create_connection((host, int(port)), REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"no Ray cluster answers at {address} ({said(error)}); start one there with ray start --head "
            "--port=6379, and look whether a firewall is between."
        ) from error


def _where(node: dict[str, Any]) -> str:
    return f"machine {node.get('NodeManagerHostname') or node.get('NodeManagerAddress')}"


def _logs(ray: Any) -> str:
    try:
        return f"{ray._private.worker._global_node.get_session_dir_path()}/logs on the machines"
    except AttributeError:  # a driver outside of the cluster, or another version of Ray
        return "session_latest/logs in Ray's folder on the machines"
