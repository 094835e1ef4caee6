"""Grammar of captions for synthetic scenes: writes sentences about a scene, and parses a sentence into its statement.

A scene has one group of equal objects, or two groups, one left of or above the other. A sentence is an opening and a
body; the body names every group and, if there are two, their relation. The grammar has nothing else.
"""

import re
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Literal

Relation = Literal["alone", "left of", "above"]

COLOURS = ("red", "yellow", "green", "blue", "black")
SHAPES = {"circle": "circles", "ring": "rings", "cross": "crosses"}
SIZES = ("small", "large")
SENTENCES_PER_STATEMENT = 5

_MOST_OBJECTS = 4
_NUMERALS = {2: "two", 3: "three", 4: "four"}
_OPENINGS = ("", "there {be} ", "a picture of ", "the picture shows ", "an image with ")
# Bodies that name the second group first are parsed but never written: a small model learns one order in a minute.
_BODIES: dict[Relation, tuple[str, ...]] = {
    "alone": ("{first}",),
    "left of": ("{first} to the left of {second}", "{second} to the right of {first}"),
    "above": ("{first} above {second}", "{second} below {first}"),
}
_PHRASE = re.compile(
    rf"\b(a|{'|'.join(_NUMERALS.values())}) "
    f"(?:({'|'.join(SIZES)}) )?"
    rf"({'|'.join(COLOURS)}) ({'|'.join([*SHAPES.values(), *SHAPES])})\b"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneObject:
    """One shape: its attributes in the grammar's words, and its enclosing circle."""

    shape: str
    colour: str
    size: str
    centre_px: tuple[float, float]
    radius_px: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """Everything that is drawn, and 64 bits that select the wording in ``describe``."""

    size_px: int
    background: tuple[int, int, int]
    objects: tuple[SceneObject, ...]
    wording: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectGroup:
    """One to four equal objects of a scene; ``size`` is None if a sentence leaves it out."""

    count: int
    size: str | None
    colour: str
    shape: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """The meaning of a sentence: one or two groups, the left or upper one first, and their relation."""

    relation: Relation
    groups: tuple[ObjectGroup, ...]


def describe(scene: Scene) -> tuple[str, ...]:
    """Return five true sentences about a scene, each worded differently.

    Raises:
        ValueError: the grammar cannot describe the scene: it has more groups, or two that are not clearly beside or
            above each other.
    """
    statement = _statement(scene)
    if statement is None:
        raise ValueError(
            f"the grammar cannot describe {len(scene.objects)} objects that are neither one group of up to "
            f"{_MOST_OBJECTS} nor two groups beside or above each other; use such a scene"
        )
    return sentences(statement, scene.wording)


def is_true(caption: str, scene: Scene) -> bool:
    """Return whether a caption is a complete sentence of the grammar and all of its claims are true of the scene.

    Complete means: every group with its count, colour and shape, and for two groups their relation. Sizes may be left
    out, but must be right if they are stated.

    Args:
        caption: words separated by white space; capitals and full stops are ignored.
        scene: scene to compare the caption with.
    """
    said, seen = parse(caption), _statement(scene)
    if said is None or seen is None or said.relation != seen.relation:
        return False
    return all(map(_agrees, said.groups, seen.groups))


def sentences(statement: Statement, wording: int) -> tuple[str, ...]:
    """Word a statement in five different ways; sizes are left out if there are two groups.

    Args:
        statement: statement to word, with all sizes.
        wording: 64 bits that select the first opening.

    Returns:
        ``SENTENCES_PER_STATEMENT`` different sentences in sentence case, each with a full stop.
    """
    groups = (
        statement.groups
        if statement.relation == "alone"
        else tuple(replace(group, size=None) for group in statement.groups)
    )
    body = _BODIES[statement.relation][0]
    worded = []
    for number in range(SENTENCES_PER_STATEMENT):
        opening = _OPENINGS[(number + wording) % len(_OPENINGS)]
        text = _fill(opening + body, [_phrase(group) for group in groups], groups)
        worded.append(f"{text[0].upper()}{text[1:]}.")
    return tuple(worded)


def parse(caption: str) -> Statement | None:
    """Return the statement of a sentence, or None if the sentence is not entirely in the grammar.

    Args:
        caption: words separated by white space; capitals and full stops are ignored.
    """
    words = " ".join(caption.lower().replace(".", " ").split())
    outline = _outlines().get(_PHRASE.sub("@", words))
    if outline is None:
        return None
    relation, template = outline
    found = sorted(_PHRASE.finditer(words), key=lambda match: match.start(), reverse=_names_second_first(template))
    groups = tuple(_group(match) for match in found)
    for group, match in zip(groups, found, strict=True):
        if match.group() != _phrase(group):
            return None
    is_agreed = _fill(template, [match.group() for match in found], groups) == words
    return Statement(relation=relation, groups=groups) if is_agreed else None


def _statement(scene: Scene) -> Statement | None:
    """Return the full statement about a scene, or None if the grammar cannot express it."""
    members: dict[tuple[str, str, str], list[SceneObject]] = {}
    for item in scene.objects:
        members.setdefault((item.size, item.colour, item.shape), []).append(item)
    ordered = _in_order(list(members.values()))
    if ordered is None or max(map(len, members.values())) > _MOST_OBJECTS:
        return None
    relation, groups = ordered
    return Statement(
        relation=relation,
        groups=tuple(
            ObjectGroup(count=len(group), size=group[0].size, colour=group[0].colour, shape=group[0].shape)
            for group in groups
        ),
    )


def _in_order(groups: list[list[SceneObject]]) -> tuple[Relation, list[list[SceneObject]]] | None:
    if len(groups) == 1:
        return "alone", groups
    relations: tuple[Relation, Relation] = ("left of", "above")
    ways: list[tuple[Relation, list[list[SceneObject]]]] = [
        (relation, order)
        for axis, relation in enumerate(relations)
        for order in (groups, groups[::-1])
        if len(groups) == 2 and _ends_before(order[0], order[1], axis)
    ]
    return ways[0] if len(ways) == 1 else None  # apart on both axes is diagonal: neither relation is clearly right


def _ends_before(first: list[SceneObject], second: list[SceneObject], axis: int) -> bool:
    end = max(item.centre_px[axis] + item.radius_px for item in first)
    return end < min(item.centre_px[axis] - item.radius_px for item in second)


def _agrees(said: ObjectGroup, seen: ObjectGroup) -> bool:
    return said == (replace(seen, size=None) if said.size is None else seen)


def _fill(template: str, phrases: list[str], groups: tuple[ObjectGroup, ...]) -> str:
    spoken_first = groups[-1 if _names_second_first(template) else 0]
    be = "is" if spoken_first.count == 1 else "are"
    return template.format(be=be, first=phrases[0], second=phrases[-1])


def _names_second_first(template: str) -> bool:
    return template.rfind("{second}") < template.find("{first}") and "{second}" in template


def _phrase(group: ObjectGroup) -> str:
    noun = group.shape if group.count == 1 else SHAPES[group.shape]
    return " ".join(filter(None, [_NUMERALS.get(group.count, "a"), group.size, group.colour, noun]))


def _group(match: re.Match[str]) -> ObjectGroup:
    numeral, size, colour, noun = match.groups()
    shape = next(shape for shape, plural in SHAPES.items() if noun in (shape, plural))
    count = next((count for count, word in _NUMERALS.items() if word == numeral), 1)
    return ObjectGroup(count=count, size=size, colour=colour, shape=shape)


@cache
def _outlines() -> dict[str, tuple[Relation, str]]:
    """Map every sentence of the grammar, with ``@`` for its groups, to its relation and template."""
    return {
        (opening + body).format(be=be, first="@", second="@"): (relation, opening + body)
        for relation, bodies in _BODIES.items()
        for opening, body, be in product(_OPENINGS, bodies, ("is", "are"))
    }
