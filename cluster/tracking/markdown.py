"""Text of other origin in the Markdown of MLflow's pages: shown as it is, whatever markup it contains."""

import re

from cluster.log_text import clean

# A line that begins with one of the second group would be a heading, a list or a rule. After an escaped ``<``, ``>`` is
# harmless, and MLflow's pages would show its backslash.
_MARKUP = re.compile(r"([\\`*_\[\]<|~&]|^[#+=-])")


def escaped(text: object) -> str:
    """Return a text on one line, with a backslash before each character that Markdown or HTML could interpret."""
    return _MARKUP.sub(r"\\\1", clean(" ".join(f"{text}".split())))
