"""Tables, on standard error."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, one_line: bool = False) -> None:
    """Print a table.

    Args:
        title: title of the table.
        columns: names of the columns.
        rows: cells of each row.
        one_line: whether the widest cells are cut so that each row is one line; otherwise they are wrapped.
    """
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        # As Text, because rich takes text in square brackets for markup, and would drop it.
        table.add_row(*(Text(cell, no_wrap=one_line, overflow="ellipsis" if one_line else None) for cell in row))
    Console(stderr=True).print(table)
