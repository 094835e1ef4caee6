"""YAML files that others may have written: read within bounds of size and depth, with every key once."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from cluster.errors import one_line

# PyYAML takes 10 s for a megabyte, and nine lines of aliases that name each other can stand for gigabytes.
_MOST_KIB = 128
_MOST_CHARACTERS = _MOST_KIB * 1024
_MOST_LEVELS = 20
_LARGEST_NUMBER = 2**63 - 1
_LONGEST_VALUE = 200
_BASE_8 = re.compile(r"[-+]?0[0-9_]+$")


def read_mapping(path: Path, what: str, *, contents: str | None = None) -> dict[Any, Any]:
    """Read a YAML file that holds a mapping, such as a file of settings.

    Args:
        path: path of the file.
        what: the file as error messages name it, such as ``--config run.yaml``.
        contents: advice on what to write into an empty file; None if the file may be empty.

    Raises:
        FileNotFoundError, IsADirectoryError: the file does not exist, or is a folder.
        ValueError: it is not YAML, too large or too deep, holds a key twice, or holds no mapping.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_KIB * 1024 + 1)
    except FileNotFoundError:
        raise FileNotFoundError(f"{what} does not exist; check its name") from None
    except IsADirectoryError:
        raise IsADirectoryError(f"{what} is a folder; name a file in it") from None
    if len(content) > _MOST_KIB * 1024:
        raise ValueError(f"{what} is larger than {_MOST_KIB} KiB, too large for a file of settings; check its name")
    try:
        document = _parse(content.decode("utf-8"))
    except Exception as error:  # PyYAML raises what Python's own conversions do, of dates and numbers too
        reason = "it is nested too deep" if isinstance(error, RecursionError) else one_line(error, with_kind=False)
        raise ValueError(f"{what} is not valid YAML ({reason}); fix it") from None
    if document is None and contents is None:
        return {}
    if not isinstance(document, dict) or (contents and not document):
        raise ValueError(f"{what} contains no settings; {contents or 'write them as key: value'}")
    return document


def shown(value: Any) -> str:  # noqa: ANN401  any value of a file
    """Return a value as text for a message, cut if it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}... ({len(text):,} characters)"


class _Loader(yaml.SafeLoader):
    """Loader of plain data, with numbers of at most 64 bits that mean what they look like.

    PyYAML follows YAML 1.1, where 1:30 is the number 90, in base 60, and 010 is 8, in base 8.
    """

    def number(self, node: yaml.ScalarNode) -> int | str:
        if ":" in node.value:
            return node.value
        if _BASE_8.match(node.value):
            raise ValueError(
                f"the number {node.value} in line {node.start_mark.line + 1} begins with 0; leave out the 0"
            )
        number = self.construct_yaml_int(node)
        if abs(number) > _LARGEST_NUMBER:
            raise ValueError(f"the number in line {node.start_mark.line + 1} is too large")
        return number

    def fraction(self, node: yaml.ScalarNode) -> float | str:
        return node.value if ":" in node.value else self.construct_yaml_float(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.number)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.fraction)


def _parse(text: str) -> Any:  # noqa: ANN401  any value
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, "", 0, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _check(node: yaml.Node, name: str, level: int, sizes: dict[int, int]) -> int:
    """Return the number of characters of a node with all aliases in it written out.

    Args:
        node: node of the tree that PyYAML composes; an alias is the node that it stands for.
        name: dotted name of the node, for messages.
        level: number of nodes around it.
        sizes: numbers of characters of the nodes that were checked already, by their ids.

    Raises:
        ValueError: the node is too deep or too large, holds a key twice, or holds itself.
    """
    if level > _MOST_LEVELS:
        raise ValueError(f"{name or 'it'} is nested more than {_MOST_LEVELS} levels deep")
    if id(node) not in sizes:
        size = 1 + (len(node.value) if isinstance(node, yaml.ScalarNode) else 0)
        for child, child_name in _children(node, name):
            size += _check(child, child_name, level + 1, sizes)
            if size > _MOST_CHARACTERS:
                raise ValueError(f"with its aliases written out, it is longer than {_MOST_CHARACTERS:,} characters")
        sizes[id(node)] = size
    return sizes[id(node)]


def _children(node: yaml.Node, name: str) -> list[tuple[yaml.Node, str]]:
    """Return the nodes in a node, each with its dotted name; refuse a key that stands twice."""
    if isinstance(node, yaml.SequenceNode):
        return [(child, name) for child in node.value]
    if not isinstance(node, yaml.MappingNode):
        return []
    keys = [key.value if isinstance(key, yaml.ScalarNode) else "?" for key, _ in node.value]
    names = [f"{name}.{key}" if name else key for key in keys]
    twice = [one for one, count in Counter(names).items() if count > 1 and not one.endswith(("<<", "?"))]
    if twice:
        raise ValueError(f"key {', '.join(twice)} stands twice, and only one of its values would count")
    return [
        pair for (key, child), inner in zip(node.value, names, strict=True) for pair in ((key, name), (child, inner))
    ]
