"""Asking every node of a cluster at once what it finds there.

A task on a node that is cut off hangs for ever: whoever asks does not wait longer than the nodes may take.
"""

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from cluster.checks.probe import LOOK_SECONDS, Question, Report, go_on, look
from cluster.errors import last_line
from cluster.resources.gcs import Node, list_nodes
from cluster.resources.placement import task_on
from cluster.runs.checkpoint_store import CheckpointStore

_ANSWER_SECONDS = 30.0


class Answer(NamedTuple):
    """A node's answer.

    Attributes:
        address: of the node.
        num_gpus: that it has.
        report: None if there is none.
        fault: why there is none.
    """

    address: str
    num_gpus: float
    report: Report | None
    fault: str = ""


def ask_nodes(question: Question, *, is_embedded: bool) -> list[Answer]:
    """Ask every node; one that dies over it is none of them.

    Args:
        question: to all.
        is_embedded: the cluster is this process's own, and looks with its eyes.
    """
    with _tokens(question) as asked:
        return _ask_here(asked) if is_embedded else _ask_all(asked)


@contextmanager
def _tokens(question: Question) -> Iterator[Question]:
    """Hold files where all nodes must see them; where none can be put, the nodes say why."""
    token, is_new = f".probe-{uuid.uuid4().hex}", not question.home.exists()
    asked = question
    with contextlib.suppress(OSError):
        question.home.mkdir(parents=True, exist_ok=True)
        (question.home / token).touch()
        asked = replace(asked, token=token)
    place = question.checkpoints
    if place and _is_done_in_time(lambda: CheckpointStore(place, sleep=go_on).put_file(token, b"probe")):
        asked = replace(asked, checkpoint_token=token)
    try:
        yield asked
    finally:
        if place and asked.checkpoint_token:
            _is_done_in_time(lambda: CheckpointStore(place, sleep=go_on).remove_file(token))
        if asked.token:
            (question.home / token).unlink(missing_ok=True)
        if is_new and question.home.is_dir() and not any(question.home.iterdir()):
            question.home.rmdir()


def _is_done_in_time(work: Callable[[], None]) -> bool:
    done: list[bool] = []

    def do() -> None:
        with contextlib.suppress(Exception):  # every filesystem raises what its own library does
            work()
            done.append(True)

    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    thread.join(LOOK_SECONDS)
    return bool(done)


def _ask_here(question: Question) -> list[Answer]:
    (node,) = list_nodes()
    return [Answer(node.address, _num_gpus(node), look(_for_node(question, node)))]


def _ask_all(question: Question) -> list[Answer]:
    import ray

    asked = {task_on(node.id, look).remote(_for_node(question, node)): node for node in list_nodes()}
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_SECONDS)
    for reference in silent:
        ray.cancel(reference, force=True)
    alive = {node.id for node in list_nodes()}
    answers = []
    for reference, node in asked.items():
        found = _report(reference) if reference in answered else f"gave no answer within {_ANSWER_SECONDS:g} s"
        if found and (node.id in alive or isinstance(found, Report)):
            report, fault = (found, "") if isinstance(found, Report) else (None, found)
            answers.append(Answer(node.address, _num_gpus(node), report, fault))
    return answers


def _for_node(question: Question, node: Node) -> Question:
    """Return the question without the one for GPUs if the node has none."""
    return replace(question, use_gpu=question.use_gpu and _num_gpus(node) > 0)


def _num_gpus(node: Node) -> float:
    return node.total.get("GPU", 0.0)


def _report(reference: Any) -> Report | str | None:  # noqa: ANN401  Ray's references have no type
    """Return a node's report, or why it cannot give one; None if it died, or is about to go and takes no task."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(reference)
    except RayTaskError as error:  # such as that our packages are not there, or are others
        return f"cannot look: {last_line(error)}"
    except RayError:
        return None
