"""Results of a probe in this process."""

import os
import socket

import pytest

from cluster.checks.probe import ProbeRequest, probe, tracker_endpoint, versions
from tests.support.case_table import each_case


def faults(**request):
    return dict(probe(ProbeRequest(**request)).faults)


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_node_where_all_is_well_finds_nothing(tmp_path, port):
    (tmp_path / "token").touch()
    (tmp_path / "manifest.json").touch()
    wanted = {
        "files": (str(tmp_path / "manifest.json"),),
        "checkpoints": (tmp_path / "checkpoints").as_uri(),
        "tracker": ("127.0.0.1", port),
    }
    assert faults(home=tmp_path, token="token", **wanted) == {}


@pytest.mark.parametrize(("names", "missing"), [("lo", ""), ("lo,eth77", "eth77"), ("", "")])
def test_a_network_interface_that_is_not_there_is_told(tmp_path, monkeypatch, names, missing):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", names)
    told = faults(home=tmp_path).get("network", "")
    assert told.startswith(f"GLOO_SOCKET_IFNAME names {missing}, and the interfaces are lo" if missing else "")
    assert bool(told) == bool(missing)


def test_looking_leaves_nothing_behind(tmp_path):
    faults(home=tmp_path, checkpoints=(tmp_path / "checkpoints").as_uri())
    assert [path.name for path in tmp_path.rglob("*")] == ["checkpoints"]


def test_a_home_without_what_was_put_there_is_another_one(tmp_path):
    assert faults(home=tmp_path, token="token") == {"home": "it does not see a file that another node wrote there"}


def test_a_home_that_takes_no_file_is_told(tmp_path):
    (tmp_path / "file").touch()
    assert "NotADirectoryError" in faults(home=tmp_path / "file")["home"]


def test_a_file_that_is_not_there_is_told(tmp_path):
    told = faults(home=tmp_path, files=(f"{tmp_path}/manifest.json",))
    assert "FileNotFoundError: [Errno 2] No such file or directory" in told["files"]


def test_a_file_at_a_url_that_is_not_there_is_told(tmp_path):
    assert faults(home=tmp_path, files=("memory://shards/manifest.json",)) == {
        "files": "memory://shards/manifest.json does not exist"
    }


def test_checkpoints_that_cannot_be_written_are_told(tmp_path):
    (tmp_path / "file").touch()
    told = faults(home=tmp_path, checkpoints=(tmp_path / "file" / "checkpoints").as_uri())
    assert "NotADirectoryError" in told["checkpoints"]


def test_a_tracker_that_does_not_answer_is_told(tmp_path):
    assert faults(home=tmp_path, tracker=("127.0.0.1", 9)) == {
        "tracker": "ConnectionRefusedError: [Errno 111] Connection refused"
    }


def test_what_hangs_hides_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr("cluster.checks.probe.PROBE_SECONDS", 0.2)
    os.mkfifo(tmp_path / "manifest.json")  # without a writer, opening it blocks forever, as on a dead mount
    told = faults(home=tmp_path, files=(f"{tmp_path}/manifest.json",), token="token")
    assert told == {"files": "no answer within 0.2 s", "home": "it does not see a file that another node wrote there"}


@each_case(
    ("uri", "place"),
    [
        ("http://tracker:5000", ("tracker", 5000)),
        ("https://user:secret@tracker", ("tracker", 443)),
        ("postgresql+psycopg2://me@db/mlflow", ("db", 5432)),
        ("sqlite:////home/me/mlflow.db", None),
        ("databricks", None),
    ],
)
def test_a_tracking_address_names_host_and_port(uri, place):
    assert tracker_endpoint(uri) == place


def test_versions_name_the_release_and_its_code():
    assert sorted(versions()) == ["Python", "Ray", "captioning"]
    assert " (code " in versions()["captioning"]
