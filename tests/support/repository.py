"""Root folder of this checkout, and its README files."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FOLDERS = ("captioning", "cluster", "jobs", "shards", "tests")
_PATHS = (ROOT / "README.md", *sorted(path for folder in _FOLDERS for path in (ROOT / folder).rglob("README.md")))
READMES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in _PATHS}
README = READMES["README.md"]


def blocks(language):
    """Return the blocks of a language, such as ``console``, in all README files."""
    return [block for text in READMES.values() for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)]


def commands(program):
    """Return every command of a program in all README files: lines of blocks, then commands in the running text."""
    lines = [line for block in blocks(r"\w+") for line in block.replace("\\\n", " ").splitlines()]
    running = [re.sub(r"```.*?```", "", text, flags=re.DOTALL) for text in READMES.values()]
    spans = [" ".join(span.split()) for text in running for span in re.findall(r"`([^`]+)`", text)]
    return [command for command in (*lines, *spans) if command.startswith(f"{program} ")]
