"""How things that strangers give end: cases made by hypothesis for every public function and the command line.

    OMP_NUM_THREADS=1 python benchmarks/hostile_inputs.py
        [--cases 40000] [--commands 1500] [--verbs 2000] [--only REGEX] [--show ...]

Every case runs in a child with a limit on time and memory; tests/hostile/runner.py says how it can end. An array in
another dress (types, layouts, libraries) must give the same numbers or be refused; an option is what a slow reader says
that it is, or refused; a file after an accident is read as what stands in it, or refused; a command ends well or in few
words. Stopped (Ctrl-C, SIGTERM) it prints what it knows. A small fixed part is tests/test_hostile.py.
"""

import argparse
import collections
import contextlib
import re
import signal
import sys
import tempfile
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from hostile import verbs
from hostile.doors import commands, made
from hostile.runner import BAD, OUTCOMES, run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=40_000, help="cases for the functions")
    parser.add_argument("--commands", type=int, default=1500, help="cases for the command line")
    parser.add_argument("--verbs", type=int, default=2000, help="cases for the verbs of a deletion request")
    parser.add_argument(
        "--show", default="wrong,traceback,hang,memory,crash,poor,refused", help="endings that are listed"
    )
    parser.add_argument("--only", default="", help="doors whose names match")
    parser.add_argument("--each", type=int, default=4, help="cases listed a door and ending")
    options = parser.parse_args()
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        cases = (made(options.cases, folder / "files") if options.cases else []) + (
            list(commands(options.commands, folder / "shell")) if options.commands else []
        )
        if options.verbs:
            cases += [*verbs.made(options.verbs // 2), *verbs.commands(options.verbs // 2, folder / "verbs")]
        cases = [case for case in cases if re.search(options.only, case.door)]
        every = max(1, len(cases) // 20)
        marks, endings = set(), []

        def progress(found):
            endings[:] = found
            if len(found) // every not in marks:
                marks.add(len(found) // every)
                bad = collections.Counter(ending.outcome for ending in found if ending.outcome in BAD)
                print(f"{len(found)} of {len(cases)}", dict(bad), file=sys.stderr, flush=True)

        with contextlib.suppress(KeyboardInterrupt):
            run(cases, progress)
    if len(endings) < len(cases):
        print(f"stopped after {len(endings)} of {len(cases)} cases")
    print(f"{'':32}" + "".join(f"{outcome:>10}" for outcome in ("cases", *OUTCOMES)))
    doors = collections.defaultdict(collections.Counter)
    for ending in endings:
        doors[ending.door][ending.outcome] += 1
    total = sum(doors.values(), collections.Counter())
    for door, counts in [*doors.items(), ("all", total)]:
        if door == "all" or any(counts[outcome] for outcome in BAD):
            print(
                f"{door:32}" + "".join(f"{number:>10}" for number in (counts.total(), *(counts[o] for o in OUTCOMES)))
            )
    shown = collections.Counter()
    for ending in endings:
        key = ending.door, ending.outcome, ending.text[:25]
        if ending.outcome in options.show.split(",") and shown[key] < options.each:
            shown[key] += 1
            print(f"\n{ending.outcome}: {ending.door}, {ending.given}\n    {ending.text[:240]!r}")


if __name__ == "__main__":
    main()
