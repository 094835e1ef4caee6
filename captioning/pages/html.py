"""Self-contained HTML pages from templates.

A page needs no other file and no network, and equal inputs give equal bytes. Its Content-Security-Policy allows only
the script of the page itself, by its digest.
"""

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_SCRIPT = "page.js"


def write_page(path: Path, template: str, values: Mapping[str, Any]) -> None:
    """Render a template to a file; all text is escaped.

    Args:
        path: HTML file to write, replaced atomically if it exists; its folder is created if absent.
        template: file name of the template.
        values: variables of the template, by name; a page that extends ``page.html.jinja`` has a title, and may have
            a kicker (what kind of page it is), a lead (a sentence) and a summary (pairs of name and value).
    """
    page = render(template, {"kicker": "", "lead": "", "summary": (), **values})
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
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("captioning.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["jpeg_uri"] = lambda jpeg: _data_uri(jpeg, "image/jpeg")
    script = environment.get_template(_SCRIPT).render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    environment.globals["script_digest"] = f"sha256-{digest}"
    return environment


def _data_uri(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
