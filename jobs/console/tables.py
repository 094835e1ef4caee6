"""Tables, on standard error."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(escape, row))  # rich would take text in square brackets for markup, and drop it
    Console(stderr=True).print(table)
