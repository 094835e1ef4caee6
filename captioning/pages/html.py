"""What HTML pages have in common: they need nothing beside them, follow light and dark, and repeat byte for byte."""

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
    """Of texts and lines."""
    card: str
    """Behind the chart, as the templates have it."""


LIGHT, DARK = Theme(ink="#40444c", card="#ffffff"), Theme(ink="#c3c8d2", card="#1b1e25")


def write_page(path: Path, template: str, values: Mapping[str, Any]) -> None:
    """Render a template to a file; all text is escaped.

    Args:
        path: the HTML file; replaced at once if it exists, its folder made if it does not.
        template: its file's name.
        values: what the template shows, by name.
    """
    environment = Environment(
        loader=PackageLoader("captioning.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["jpeg_uri"] = lambda jpeg: _data_uri(jpeg, "image/jpeg")
    page = environment.get_template(template).render(values)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(page, encoding="utf-8")
    unfinished.replace(path)


def chart(description: str, draw: Callable[[Theme], "Figure"]) -> dict[str, str]:
    """Draw a chart for light and for dark.

    Args:
        description: what it shows, for who does not see it.
        draw: makes the figure in a theme's colours.

    Returns:
        What a template shows: description, light and dark; the last two are addresses that hold an SVG.
    """
    return {"description": description, "light": _svg_uri(draw, LIGHT), "dark": _svg_uri(draw, DARK)}


def style_axes(axes: "Axes", theme: Theme, *, title: str, x_label: str) -> None:
    """Give a plot its title, taken as it is, and the theme's colours."""
    axes.set_title(title, color=theme.ink, fontsize=11, loc="left", parse_math=False)
    axes.set_xlabel(x_label, color=theme.ink)
    axes.tick_params(colors=theme.ink)
    axes.grid(color=theme.ink, alpha=0.18)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.ink)


def _data_uri(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _svg_uri(draw: Callable[[Theme], "Figure"], theme: Theme) -> str:
    # Imported here: 0.5 s that a page without charts should not cost.
    from matplotlib import rc_context

    content = io.BytesIO()
    # A fixed salt and no date make the same bytes every time.
    with rc_context({"svg.hashsalt": "captioning"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box in a name says as much
        draw(theme).savefig(content, format="svg", transparent=True, metadata={"Date": None})
    return _data_uri(content.getvalue(), "image/svg+xml")
