"""The system's errors, made by the system, as lines that people read."""

import errno
import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.errors import Unreachable, error_line, one_line, passing_fault
from cluster.system_errors import is_unknown_host, system_fault
from tests.support.case_table import each_case
from tests.support.unprivileged import unprivileged


def open_too_long(folder):
    (folder / ("n" * 300)).open()


def open_a_circle(folder):
    (folder / "circle").symlink_to("circle")
    (folder / "circle").open()


def list_a_file(folder):
    (folder / "file").touch()
    [*(folder / "file").iterdir()]


def replace_a_folder(folder):
    (folder / "file").touch()
    (folder / "there").mkdir()
    (folder / "file").replace(folder / "there")


@pytest.mark.parametrize(
    ("fails", "line"),
    [
        (lambda folder: (folder / "none").open(), "{folder}/none does not exist"),
        (Path.open, "{folder} is a folder, and a file is needed; correct the path"),
        (Path.mkdir, "{folder} exists already"),
        (list_a_file, "{folder}/file is not a folder, or a part of its path is not; correct the path"),
        (open_a_circle, "the symbolic links of {folder}/circle lead back to themselves; correct them"),
        (replace_a_folder, "{folder}/file -> {folder}/there: is a directory"),
        (lambda folder: (folder / "none").rename(folder), "{folder}/none -> {folder}: no such file or directory"),
        (lambda folder: subprocess.run([folder / "git"], check=True), "{folder}/git does not exist"),
        (lambda _: subprocess.run(["no-such-program"], check=True), "no-such-program does not exist"),
        (open_too_long, "{long} is longer than the file system allows; choose a shorter name"),
    ],
)
def test_a_path_is_named_with_why_it_fails_and_what_to_do_if_that_is_sure(fails, line, tmp_path):
    with pytest.raises(OSError, match=r"\[Errno ") as raised:
        fails(tmp_path)
    long = f"{tmp_path}/{'n' * 300}"
    told = line.format(folder=tmp_path, long=f"{long[:100]}...{long[-50:]}")
    assert (error_line(raised.value), passing_fault(raised.value)) == (told, None)
    assert one_line(raised.value, with_kind=False) == told.partition("; ")[0]


DENIED = """
import os, sys
from cluster.errors import error_line
for name, path in zip(*[iter(sys.argv[1:])] * 2):
    try:
        {"read": open, "write": lambda path: open(path, "wb"), "remove": os.remove}[name](path)
    except OSError as error:
        print(error_line(error))
"""


def test_who_may_not_do_what_is_told(tmp_path):
    for name in ("closed", "fixed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch(mode=0o444)
    tries = {
        ("read", "closed/file"): "look into folder {folder}/closed",
        ("write", "fixed/file"): "write {folder}/fixed/file",
        ("write", "fixed/new"): "write to folder {folder}/fixed",
        ("remove", "fixed/file"): "write {folder}/fixed/file",
        ("read", "secret"): "read {folder}/secret",
    }
    (tmp_path / "secret").touch(mode=0o200)
    (tmp_path / "closed").chmod(0o000)
    (tmp_path / "fixed").chmod(0o555)
    words = [word for action, path in tries for word in (action, str(tmp_path / path))]
    try:
        told = unprivileged(DENIED, *words)
    finally:
        (tmp_path / "closed").chmod(0o755)
        (tmp_path / "fixed").chmod(0o755)
    user = pwd.getpwuid(os.geteuid()).pw_name
    remedy = "give the user this permission, or choose another path"
    assert told == [f"user {user} may not {what.format(folder=tmp_path)}; {remedy}" for what in tries.values()]


TOO_MANY = """
import resource
from cluster.errors import passing_fault
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
opened = []
try:
    while True:
        opened.append(open("/dev/null"))
except OSError as error:
    print(passing_fault(error))
"""


def test_too_many_open_files_are_told_with_the_limit():
    line = subprocess.run([sys.executable, "-c", TOO_MANY], capture_output=True, text=True, check=True).stdout
    assert line == "/dev/null: this process has too many open files; raise the limit of 64 with ulimit -n\n"


def test_an_error_without_a_path_is_the_systems_text():
    assert system_fault(PermissionError(errno.EACCES, "Permission denied")) == ("Permission denied", "")
    assert system_fault(OSError("no code")) is None


@each_case(
    ("error", "is_unknown"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), True),
        (socket.gaierror(socket.EAI_FAMILY, "ai_family not supported"), True),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), False),
        (socket.gaierror(socket.EAI_FAIL, "Non-recoverable failure in name resolution"), False),
        (socket.gaierror(socket.EAI_SYSTEM, "System error"), False),
        (socket.gaierror(socket.EAI_MEMORY, "Memory allocation failure"), False),
        (UnicodeError("encoding with 'idna' codec failed (UnicodeError: label too long)"), True),
        (UnicodeError("another"), False),
    ],
)
def test_an_unknown_host_is_bad_input_and_a_look_up_that_failed_is_not(error, is_unknown):
    silent = Unreachable("MLflow does not answer", "")
    silent.__cause__ = error
    assert (is_unknown_host(error), passing_fault(silent) is None) == (is_unknown, is_unknown)
