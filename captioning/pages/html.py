"""Self-contained HTML pages: templates, and charts as embedded SVGs for a light and a dark theme.

A page needs no other file and no network, and equal inputs give equal bytes.
"""

import base64
import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACCENT = "#4c8dff"


class Theme(NamedTuple):
    """The colours of a chart, as #rrggbb."""

    ink: str
    """Colour of texts and lines."""
    card: str
    """Background colour of the chart; equal to ``--card`` in the templates."""


LIGHT, DARK = Theme(ink="#40444c", card="#ffffff"), Theme(ink="#c3c8d2", card="#1b1e25")


def write_page(path: Path, template: str, values: Mapping[str, Any]) -> None:
    """Render a template to a file; all text is escaped.

    Args:
        path: HTML file to write, replaced atomically if it exists; its folder is created if absent.
        template: file name of the template.
        values: variables of the template, by name.
    """
    page = render(template, values)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        unfinished.write_text(page, encoding="utf-8", errors="backslashreplace")  # a file name need not be UTF-8
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        error.filename = str(path)  # a full disk does not say of which file
        raise


def render(template: str, values: Mapping[str, Any]) -> str:
    """Render a template to HTML; all text is escaped.

    Args:
        template: file name of the template.
        values: variables of the template, by name.
    """
    environment = Environment(
        loader=PackageLoader("captioning.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["jpeg_uri"] = lambda jpeg: _data_uri(jpeg, "image/jpeg")
    return environment.get_template(template).render(values)


def render_chart(description: str, draw: Callable[[Theme], "Figure"]) -> dict[str, str]:
    """Render a chart for the light and the dark theme.

    Args:
        description: alternative text of the chart.
        draw: function that draws the figure in the colours of a theme.

    Returns:
        ``description``, and the SVG of each theme as a data URI: ``light`` and ``dark``.
    """
    return {"description": description, "light": _svg_uri(draw, LIGHT), "dark": _svg_uri(draw, DARK)}


def style_axes(axes: "Axes", theme: Theme, *, title: str, x_label: str) -> None:
    """Set a plot's title, as plain text, its x label, and the colours of the theme."""
    axes.set_title(title, color=theme.ink, fontsize=11, loc="left", parse_math=False)
    axes.set_xlabel(x_label, color=theme.ink)
    axes.tick_params(colors=theme.ink)
    axes.grid(color=theme.ink, alpha=0.18)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.ink)


def _data_uri(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _svg_uri(draw: Callable[[Theme], "Figure"], theme: Theme) -> str:
    # Imported here, because it takes 0.5 s, which a page without charts should not cost.
    from matplotlib import rc_context

    content = io.BytesIO()
    # With a fixed salt and no date, equal figures give equal bytes.
    with rc_context({"svg.hashsalt": "captioning"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the chart shows a box instead
        draw(theme).savefig(content, format="svg", transparent=True, metadata={"Date": None})
    return _data_uri(content.getvalue(), "image/svg+xml")
