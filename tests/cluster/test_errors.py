import errno
import gzip
import pickle
from email.message import Message
from urllib.error import HTTPError

import pytest
import ray.exceptions
import requests
import torch
from PIL import Image

from cluster.errors import (
    Refusal,
    Unreachable,
    failure_line,
    is_out_of_memory,
    last_line,
    one_line,
    passing_fault,
    portable,
    shorten,
)
from tests.support.case_table import each_case
from tests.support.pictures import encoded, picture


def test_a_message_of_several_lines_becomes_one():
    assert one_line(ValueError("no room\n  on disk\n")) == "ValueError: no room on disk"


def test_a_long_message_is_cut():
    assert one_line(ValueError("no room on disk"), longest=19) == "ValueError: no room"


def test_an_error_without_a_message_has_its_kind():
    assert one_line(KeyError()) == "KeyError:"


def test_a_text_has_no_kind():
    assert one_line("no room\n  on disk") == "no room on disk"


def test_a_message_may_be_asked_for_without_its_kind():
    assert one_line(ValueError("no room"), with_kind=False) == "no room"


@each_case(("text", "line"), [("Traceback:\n  File a\nKeyError:  1\n\n", "KeyError: 1"), ("one", "one"), ("", "")])
def test_the_last_line_of_a_traceback_names_the_cause(text, line):
    assert (last_line(RuntimeError(text)), last_line(text)) == (line, line)


@pytest.mark.parametrize("kind", [Refusal, Unreachable])
def test_an_error_says_what_was_found_and_what_to_do(kind):
    error = kind("the disk; it is full", "make room")
    assert (str(error), error.found, error.remedy) == (
        "the disk; it is full; make room", "the disk; it is full", "make room",
    )  # fmt: skip


@pytest.mark.parametrize("kind", [Refusal, Unreachable])
def test_an_error_without_a_remedy_says_what_was_found(kind):
    assert str(kind("the disk is full", "")) == "the disk is full"


@pytest.mark.parametrize("kind", [Refusal, Unreachable])
def test_an_error_of_another_process_keeps_its_remedy(kind):
    error = pickle.loads(pickle.dumps(kind("the disk is full", "make room")))
    assert (type(error), error.found, error.remedy) == (kind, "the disk is full", "make room")


def test_the_kinds_are_those_that_others_catch():
    assert (issubclass(Refusal, ValueError), issubclass(Unreachable, ConnectionError)) == (True, True)


def test_a_long_text_is_shortened_in_its_middle():
    assert (shorten("a; b", 4), shorten("a" * 50 + "; do this", 40)) == ("a; b", "a" * 25 + " ... a; do this")


def test_a_message_has_no_credentials_and_nothing_unprintable():
    assert one_line("no http://me:secret@host\x1b[1m") == r"no http://host\x1b[1m"


def test_the_failure_of_a_call_to_another_process_is_its_last_line():
    class RayTaskError(Exception):
        """Stands for Ray's, whose text is the other process's traceback."""

    RayTaskError.__module__ = "ray.exceptions"
    text = "ray::Coordinator.begin() (pid=1)\n    ^^^^^\nPermissionError: the run is over"
    assert failure_line(RayTaskError(text)) == "PermissionError: the run is over"
    assert failure_line(ValueError("a\nb")) == "ValueError: a b"


FULL = OSError(errno.ENOSPC, "No space left on device", "/d/x")


def response(status):
    found = requests.Response()
    found.status_code = status
    return found


def from_none(error, context):
    error.__context__, error.__suppress_context__ = context, True
    return error


def caused(error, cause):
    error.__cause__ = cause
    return error


@each_case(
    ("error", "told"),
    [
        (OSError(errno.EIO, "Input/output error", "/d/x"), "/d/x: Input/output error"),
        (Unreachable("MLflow is down", "start it"), "MLflow is down; start it"),
        (TimeoutError(), "TimeoutError"),
        (HTTPError("http://h", 503, "Service Unavailable", Message(), None), "HTTP Error 503: Service Unavailable"),
        (requests.HTTPError("429 for http://h", response=response(429)), "429 for http://h"),
        (FULL, "/d/x: No space left on device; make room there, then run the same command again"),
        (
            caused(ValueError("a cannot be written"), FULL),
            "a cannot be written (/d/x: No space left on device); make room there, then run the same command again",
        ),
        # safetensors and SQLite have errors of their own
        (KeyError("I/O error: No space left on device (os error 28)"), "make room there"),
        (KeyError("(sqlite3.OperationalError) database or disk is full"), "make room there"),
        (MemoryError(), "memory ran out (MemoryError); run fewer processes at once"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
            "memory ran out",
        ),
        (
            ray.exceptions.OutOfMemoryError("Task was killed, low on memory.\nTop 10:\n1 x"),
            "(Task was killed, low on m",
        ),
        (ray.exceptions.ActorDiedError(), "The actor died unexpectedly before finishing this task."),
        (ray.exceptions.GetTimeoutError("no answer\nin time"), "in time"),
        (ray.exceptions.RayTaskError("f", "trace\nback", ConnectionError("x")), "back"),
    ],
)
def test_a_fault_that_may_pass_is_told(error, told):
    assert told in str(passing_fault(error))


@each_case(
    "error",
    [
        ValueError("x"),
        KeyError("x"),
        RuntimeError("x"),
        FileNotFoundError(errno.ENOENT, "No such file", "/d/x"),
        OSError(errno.EROFS, "Read-only file system", "/d/x"),
        Refusal("port 80 cannot be used", "choose another"),
        caused(ValueError("not a job server"), HTTPError("http://h", 404, "Not Found", Message(), None)),
        requests.HTTPError("404 for http://h", response=response(404)),
        caused(PermissionError("it requires a token"), ray.exceptions.AuthenticationError("no token")),
        ray.exceptions.RayTaskError("f", "trace\nback", ValueError("x")),
        from_none(Refusal("host x is unknown", "correct it"), ConnectionError("x")),
    ],
)
def test_bad_input_and_faults_of_the_program_do_not_pass(error):
    assert passing_fault(error) is None


def load_truncated(path):
    path.write_bytes(encoded(picture(40, 30))[:300])
    Image.open(path).load()


def load_other(path):
    path.write_bytes(b"<svg/>")
    Image.open(path)


def unpack(path):
    path.write_bytes(b"no gzip")
    gzip.decompress(path.read_bytes())


@pytest.mark.parametrize("read", [load_truncated, load_other, unpack])
def test_a_damaged_file_stays_damaged_whatever_a_library_raises(tmp_path, read):
    with pytest.raises(OSError, match=r".") as raised:
        read(tmp_path / "file")
    assert (passing_fault(raised.value), passing_fault(caused(ValueError("a.jpg"), raised.value))) == (None, None)


@each_case(
    "error",
    [
        FULL,
        MemoryError(),
        ConnectionError("gone"),
        ValueError("bad\nimage"),
        FileNotFoundError(errno.ENOENT, "No", "x"),
    ],
)
def test_an_error_says_the_same_in_another_process(error):
    sent = pickle.loads(pickle.dumps(portable(error)))
    assert (passing_fault(sent), isinstance(sent, ValueError)) == (passing_fault(error), passing_fault(error) is None)


def test_a_cause_that_pickling_drops_still_counts():
    sent = portable(caused(ValueError("image cannot be read"), OSError(errno.EIO, "Input/output error")))
    assert passing_fault(pickle.loads(pickle.dumps(sent))) == "image cannot be read"


@each_case(
    ("error", "is_memory"),
    [(MemoryError(), True), (torch.OutOfMemoryError("CUDA"), True), (OSError(12, "Cannot allocate memory"), True),
     (ValueError("room"), False)],
)  # fmt: skip
def test_a_lack_of_memory_is_known_from_any_library(error, is_memory):
    assert is_out_of_memory(error) is is_memory
