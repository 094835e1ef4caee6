import pickle

import pytest

from cluster.errors import Refusal, Unreachable, last_line, one_line, shorten


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


@pytest.mark.parametrize(
    ("text", "line"), [("Traceback:\n  File a\nKeyError:  1\n\n", "KeyError: 1"), ("one", "one"), ("", "")]
)
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
