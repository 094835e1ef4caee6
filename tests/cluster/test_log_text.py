import logging

import pytest

from cluster.log_text import clean, clean_logs, printable
from tests.support.case_table import each_case


@pytest.fixture
def cleaned(caplog):
    """Clean the records of this process until the end of the test."""
    before = logging.getLogRecordFactory()
    clean_logs()
    caplog.set_level(logging.DEBUG)
    yield caplog
    logging.setLogRecordFactory(before)


@each_case(
    ("text", "shown"),
    [
        ("a dog", "a dog"),
        ("\x1b[2Ja\nb\tc\r\x00", r"\x1b[2Ja\nb\tc\r\x00"),
        ("abc\u202ecba\u2028", r"abc\u202ecba\u2028"),  # turns the direction of the text, and a line separator
        (b"caf\xe9".decode("utf-8", "surrogateescape"), r"caf\udce9"),
        ("एक कुत्ता 犬　が\u00a0", "एक कुत्ता 犬　が\u00a0"),
        ("क्‍ष 👩‍🚀", "क्‍ष 👩‍🚀"),  # joined by U+200D
        (r"C:\new", r"C:\new"),
    ],
)
def test_what_is_not_printable_is_escaped(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown


def test_lines_may_be_kept():
    assert printable("a\n\x1bb", keeps_lines=True) == "a\n\\x1bb"


def test_credentials_are_left_out_too():
    assert clean("no http://me:secret@host\x07") == r"no http://host\x07"


def test_a_file_name_cannot_forge_a_line_of_our_log(cleaned):
    logging.getLogger("jobs.caption").warning("cannot read %s", "a\nerror: b\x1b[1m.jpg")
    assert cleaned.messages == [r"cannot read a\nerror: b\x1b[1m.jpg"]


def test_messages_of_libraries_keep_their_lines_but_no_credentials(cleaned):
    logging.getLogger("sqlalchemy.pool").warning("cannot connect to\n%s", "postgresql://me:secret@host/db")
    assert cleaned.messages == ["cannot connect to\npostgresql://host/db"]


def test_tracebacks_have_no_credentials(cleaned):
    try:
        raise OSError("http://me:secret@host does\x1b not answer")
    except OSError as error:
        logging.getLogger("cluster").error("failed", exc_info=error)
    assert ("secret" in cleaned.text, r"http://host does\x1b not" in cleaned.text) == (False, True)


def test_a_message_without_faults_keeps_its_arguments(cleaned):
    logging.getLogger("cluster").info("step %d", 3)
    assert (cleaned.records[0].msg, cleaned.records[0].args) == ("step %d", (3,))


def test_records_are_cleaned_once(cleaned):
    make = logging.getLogRecordFactory()
    clean_logs()
    assert logging.getLogRecordFactory() is make
