"""Compiles the kernels at installation where there is a C compiler, and installs without them if not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("src", "expunge", "ensembles")
LIBRARY = "_direct.so"
FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
TYPES = (32, 64)
"""Bits of a number: the kernels of each type are compiled at the same time, then linked."""


def compiled(compiler: str, source: Path, bits: int, out: str) -> None:
    """Compile the kernels of one type of numbers."""
    run([compiler, *FLAGS, f"-DONLY={bits}", "-c", str(source), "-o", out])


def run(command: list[str]) -> None:
    """Run a compiler or linker.

    Raises:
        subprocess.CalledProcessError: If it fails; what it said is in `stderr`.
    """
    subprocess.run(command, check=True, capture_output=True, text=True)


class CompileKernels(BuildHookInterface):
    """Runs before the wheel, or the link of an editable installation, is made."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile beside the source and ship the library, or say why not."""
        folder = Path(self.root) / FOLDER
        library = folder / LIBRARY
        library.unlink(missing_ok=True)
        compiler = next(filter(shutil.which, (os.environ.get("CC", ""), "cc", "gcc", "clang")), None)
        if sys.platform == "win32" or os.environ.get("EXPUNGE_COMPILED") == "0" or compiler is None:
            self.app.display_warning("no C compiler is used: training on the CPU will be slower, all else is the same")
            return
        # Written under another name first: an interrupted compiler must not leave half a library.
        part = library.with_suffix(".part")
        try:
            with tempfile.TemporaryDirectory() as objects, ThreadPoolExecutor(len(TYPES)) as pool:
                made = [str(Path(objects, f"{bits}.o")) for bits in TYPES]
                list(pool.map(lambda bits, at: compiled(compiler, folder / "direct.c", bits, at), TYPES, made))
                run([compiler, "-shared", *made, "-o", str(part), "-lm"])
            part.replace(library)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", "") or str(error)
            self.app.display_warning(f"the kernels could not be compiled and are left out: {reason}")
            return
        build_data["pure_python"] = False
        # The library is loaded by its name and knows nothing of Python: one wheel serves every version.
        build_data["tag"] = f"py3-none-{re.sub('[-.]', '_', sysconfig.get_platform())}"
        build_data["artifacts"].append(str(FOLDER / LIBRARY))
