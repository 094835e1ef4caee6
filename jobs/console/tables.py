"""Tables, on standard error."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.log_text import clean


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, one_line: bool = False) -> None:
    """Print a table.

    Args:
        title: title of the table.
        columns: names of the columns.
        rows: cells of each row.
        one_line: whether the widest cells are cut so that each row is one line; otherwise they are wrapped.
    """
    table = Table(*columns, title=plain(title), title_justify="left")
    for row in rows:
        table.add_row(*(plain(cell, is_cut=one_line) for cell in row))
    Console(stderr=True).print(table)


def diversity_rows(diversity: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return a row for each number of how varied captions are; shares have a decimal point."""
    return [(what, f"{value:.3f}" if isinstance(value, float) else f"{value:,}") for what, value in diversity.items()]


def plain(text: str, *, is_cut: bool = False) -> Text:
    """Return a text as rich shows it unchanged, but for unprintable characters, which are escaped.

    Rich takes text in square brackets for markup, and would drop it.

    Args:
        text: text of a cell or title.
        is_cut: whether a text wider than its cell is cut instead of wrapped.
    """
    return Text(clean(text), no_wrap=is_cut or None, overflow="ellipsis" if is_cut else None)
