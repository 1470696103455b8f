"""Tables for a terminal or a log file of any width: nothing is cut off, and numbers stay whole.

A table fits when every column with `no_wrap` has all its room, and every other one its `min_width` and its longest
word. Of several tables that say the same the first that fits is printed; where none does, the last one is written as a
list, each row under its first cell.
"""

from __future__ import annotations

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text


def print_fitting(console: Console, *tables: Table) -> None:
    """Print the first table that fits the console's width, or the last one as a list.

    Args:
        console: Its width decides.
        tables: From the widest to the narrowest, with text in all cells; strings are printed as they are.
    """
    for table in tables:
        room = console.width - _around(table) - sum(map(_least, table.columns))
        if room >= 0:
            _share(table, room)
            _print_title(console, table)
            console.print(table, markup=False, highlight=False)
            return
    _print_list(console, tables[-1])


def _print_list(console: Console, table: Table) -> None:
    _print_title(console, table)
    first, name = table.columns[0], Text()
    # A number needs the name of its column, words speak for themselves.
    if all(_is_number(cell) for cell in first.cells):
        name.append(f"{_text(first.header)} ", "dim")
    for row in zip(*([_text(cell) for cell in column.cells] for column in table.columns), strict=True):
        console.print(name.copy().append_text(row[0]))
        facts = [
            Text(f"{column.header} ", "dim").append_text(cell) if column.justify == "right" else cell
            for column, cell in zip(table.columns[1:], row[1:], strict=True)
            if cell
        ]
        if facts:
            console.print(Padding(Text("; ").join(facts), (0, 0, 0, 4), expand=False))


def _print_title(console: Console, table: Table) -> None:
    """Print a title above its table, which may be narrower, instead of in its width."""
    if table.title:
        console.print(Text(str(table.title), "italic"))
        table.title = None


def _is_number(cell: object) -> bool:
    try:
        float(_text(cell).plain)
    except ValueError:
        return False
    return True


def _around(table: Table) -> int:
    """Return the width of what stands between and around the columns."""
    _, right, _, left = table.padding
    count = len(table.columns)
    return (right + left) * (count if table.pad_edge else count - 1) + (count + 1 if table.box else 0)


def _share(table: Table, room: int) -> None:
    """Fix every width: each column has what it needs, and those that could use more share the room in proportion."""
    least = [_least(column) for column in table.columns]
    wishes = [_most(column) - has for column, has in zip(table.columns, least, strict=True)]
    wished = max(sum(wishes), 1)
    for column, has, wish in zip(table.columns, least, wishes, strict=True):
        column.width = has + min(wish, wish * room // wished)


def _least(column: Column) -> int:
    longest_word = max((cell_len(word) for cell in _cells(column) for word in cell.split()), default=0)
    return _most(column) if column.no_wrap else max(column.min_width or 0, longest_word)


def _most(column: Column) -> int:
    longest_line = max((cell_len(line) for cell in _cells(column) for line in cell.splitlines()), default=0)
    return max(column.min_width or 0, longest_line)


def _cells(column: Column) -> list[str]:
    return [_text(cell).plain for cell in (column.header, *column.cells)]


def _text(cell: object) -> Text:
    return cell if isinstance(cell, Text) else Text(str(cell))
