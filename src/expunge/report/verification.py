"""What a check of a bundle found, in words: what differs first, then what was checked and what was not."""

from __future__ import annotations

import io

from rich.console import Console
from rich.text import Text

from expunge.core.evidence import Verification
from expunge.report import numbers

ROOT_SAYS = "this number identifies the bundle: write it down, or sign the file"


def print_verification(found: Verification, console: Console) -> None:
    """Print what a check found.

    Args:
        found: What it found.
        console: Where to print.
    """
    size = f"{numbers.count(found.files, 'file')}, {found.bytes / 1e6:.1f} MB"
    console.print(Text(f"{found.bundle}: {size}, written by expunge {found.written_by or 'unknown'}"), soft_wrap=True)
    if found.passed:
        console.print(Text("Nothing differs.", "bold green"))
    else:
        console.print(Text(f"{numbers.count(len(found.differences), 'thing differs', 'things differ')}:", "bold red"))
        for each in found.differences:
            console.print(Text(f"  {each.where}: {each.what}"), soft_wrap=True)
    for sentence in found.checked:
        console.print(Text(f"Checked: {sentence}."), soft_wrap=True)
    for sentence in found.unchecked:
        console.print(Text(f"Not checked: {sentence}.", "dim"), soft_wrap=True)
    if found.root_expected is not None and found.root_expected.strip().lower() == found.root:
        print_root(found.root, console, "as it was given")
    else:
        print_root(found.root, console)


def print_root(root: str, console: Console, says: str = ROOT_SAYS) -> None:
    """Print the root digest of a bundle, and what it is for."""
    console.print(Text(f"Root digest ({says}):"), soft_wrap=True)
    console.print(Text(f"  {root}", "bold"), soft_wrap=True)


def verification_text(found: Verification) -> str:
    """Return what `print_verification` prints, without colours."""
    console = Console(file=io.StringIO(), width=120, color_system=None, force_terminal=False)
    print_verification(found, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().rstrip()
