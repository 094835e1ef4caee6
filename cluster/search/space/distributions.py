"""Distribution of one searched key, and its text form in a search file. Imports no torch, Ray or MLflow."""

import ast
import contextlib
import difflib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

Kind = Literal["uniform", "loguniform", "int", "logint", "choice"]

_KINDS: tuple[str, ...] = get_args(Kind)
_NAMED_VALUES = {"null": None, "true": True, "false": False}
_LARGEST_INT = 2**53  # samplers compute with floats, which represent every whole number up to this one exactly


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """A configuration key and the distribution of its values."""

    key: str
    """Section and field, such as optimizer.learning_rate."""
    kind: Kind
    """The kind of distribution; a range includes both of its ends."""
    arguments: tuple[Any, ...]
    """The two ends of a range, or the choices; a single choice fixes the key."""

    @property
    def values(self) -> Sequence[Any] | None:
        """Return all values in order; None if there are infinitely many."""
        if self.kind == "choice":
            return self.arguments
        low, high = self.arguments
        if self.kind in ("int", "logint"):
            return range(low, high + 1)
        return (low,) if low == high else None

    @property
    def is_fixed(self) -> bool:
        """Return whether there is only one value."""
        return self.values is not None and len(self.values) == 1

    @property
    def is_log(self) -> bool:
        """Return whether the scale is logarithmic."""
        return self.kind in ("loguniform", "logint")

    def __str__(self) -> str:
        """Return the distribution as written in a search file; equal parameters have equal texts."""
        if self.kind != "choice":
            return f"{self.kind}({self.arguments[0]!r}, {self.arguments[1]!r})"
        choices = json.dumps(list(self.arguments), ensure_ascii=False)
        return choices[1:-1] if self.is_fixed else f"choice({choices})"


def parse_distribution(value: object) -> tuple[Kind, tuple[Any, ...]]:
    """Parse the value of a key in a search file; a value that is not a distribution is a single choice.

    The text is parsed, never evaluated.

    Args:
        value: text such as ``loguniform(1e-4, 1e-2)``, or any scalar.

    Returns:
        Kind and arguments of a ``Parameter``.

    Raises:
        ValueError: the distribution is unknown, or does not take these arguments.
    """
    if not isinstance(value, str):
        return "choice", (_scalar(value),)
    try:
        tree = ast.parse(value.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        if value.startswith(tuple(f"{kind}(" for kind in _KINDS)):
            raise ValueError("brackets, quotes or commas are wrong; fix them") from None
        return "choice", (value,)
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
        return _distribution(tree.func.id, tree)
    # YAML reads 1e-4 as a string. Other strings only look like an expression, such as 2017/weights.pth, and stay one.
    with contextlib.suppress(ValueError):
        return "choice", (_scalar(_literal(tree)),)
    return "choice", (value,)


def _distribution(name: str, call: ast.Call) -> tuple[Kind, tuple[Any, ...]]:
    if name not in _KINDS:
        near = difflib.get_close_matches(name, _KINDS, n=1)
        raise ValueError(f"there is no {name}(); use {near[0] if near else ', '.join(_KINDS)}")
    if call.keywords:
        raise ValueError(f"{name} takes no named arguments; write the values alone")
    arguments = [_literal(argument) for argument in call.args]
    if name != "choice":
        return cast(Kind, name), _ends(name, arguments)
    if len(arguments) != 1 or not isinstance(arguments[0], (list, tuple)):
        raise ValueError("choice takes one list; write choice([A, B])")
    if not arguments[0]:
        raise ValueError("the list of choices is empty; write at least one value into it")
    return "choice", tuple(_scalar(choice) for choice in arguments[0])


def _ends(name: str, arguments: Sequence[Any]) -> tuple[float, float]:
    """Return the checked ends of a range; float for uniform and loguniform, int for int and logint."""
    if len(arguments) != 2 or any(type(end) not in (int, float) for end in arguments):
        raise ValueError(f"{name} takes two numbers; write {name}(LOWEST, HIGHEST)")
    low, high = (_scalar(end) for end in arguments)
    if name in ("uniform", "loguniform"):
        low, high = float(low), float(high)
    elif type(low) is float or type(high) is float:
        raise ValueError(f"{name} takes whole numbers; for others use {name.replace('int', 'uniform')}")
    if low > high:
        raise ValueError(f"the range from {low} to {high} is empty; write the lower end first")
    if name.startswith("log") and low <= 0:
        raise ValueError(f"{low} has no logarithm; start above 0, or use {name.removeprefix('log')}")
    return low, high


def _literal(node: ast.expr) -> Any:  # noqa: ANN401  any value that can be written down
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_literal(element) for element in node.elts]
    if isinstance(node, ast.Name) and node.id in _NAMED_VALUES:
        return _NAMED_VALUES[node.id]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise ValueError(
            "a value is not a number, true, false, null, or a text in quotes; write one of these"
        ) from None


def _scalar(value: Any) -> Any:  # noqa: ANN401  any value that YAML or an expression holds
    if not isinstance(value, (bool, int, float, str, type(None))):
        raise ValueError("a value is not a number, a text, true, false or null; to try several, write choice([A, B])")
    if isinstance(value, int) and abs(value) > _LARGEST_INT:
        raise ValueError(f"a whole number is out of range; use at most {_LARGEST_INT}")
    if isinstance(value, float) and not abs(value) <= sys.float_info.max:  # nan fails every comparison
        raise ValueError(f"{value} is not finite; use a finite number")
    return value
