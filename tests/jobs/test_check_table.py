"""Output of ``captioning check``, for given tables of a cluster and results of checks."""

import contextlib
import json

import pytest

from cluster.checks.result import CheckResult
from cluster.resources.gcs import Node, ReservedGroup, Tables
from jobs.cli import run_job

LEFT = ReservedGroup("g", "02000000", "f" * 32, "", is_detached=False, resources={"CPU": 2.0})


@pytest.fixture
def pretended(monkeypatch, capsys):
    """Return a function that runs the job against given tables, and returns (exit code, standard error)."""

    def run(groups, *arguments, stuck=(), checks=()):
        monkeypatch.setattr("cluster.resources.session.cluster_session", lambda config: contextlib.nullcontext())
        monkeypatch.setattr(
            "cluster.resources.gcs.list_nodes",
            lambda: [Node("n" * 56, "10.0.0.1", {"CPU": 4.0, "GPU": 1.0}, {"CPU": 3.0})],
        )
        monkeypatch.setattr("cluster.resources.gcs.read_tables", lambda: Tables(frozenset({"02000000"}), [], groups))
        monkeypatch.setattr("cluster.resources.leftovers.remove_orphans", lambda leftovers: leftovers if stuck else [])
        monkeypatch.setattr("cluster.checks.job.check_job", lambda job: list(checks))
        with pytest.raises(SystemExit) as ended:
            run_job("check", ["--cluster.address", "10.0.0.1:6379", *arguments])
        return ended.value.code, capsys.readouterr().err

    return run


def test_a_clean_cluster_is_told_in_a_table_of_its_nodes(pretended):
    code, told = pretended([])
    assert (code, "│ 10.0.0.1 │ 3/4       │ 0/1" in told, "no leftovers from dead jobs" in told) == (0, True, True), (
        told
    )


def test_a_removed_leftover_is_named(pretended):
    code, told = pretended([LEFT], "--clean")
    assert (code, "removed placement group g of dead job 02000000 (2 CPU)" in told) == (0, True), told


def test_a_leftover_that_stays_is_a_failure(pretended):
    code, told = pretended([LEFT], "--clean", stuck=True)
    assert (code, told.splitlines()[-1]) == (
        1,
        "error: could not remove 1 of 1 leftovers, first placement group g of dead job 02000000 (2 CPU); "
        "run the same command again, or restart the cluster",
    )


def test_a_dry_cleaning_removes_nothing(pretended):
    code, told = pretended([LEFT], "--clean", "--dry-run")
    assert (code, "removed" in told, "captioning check --clean removes them" in told) == (0, False, True)


BLIND = CheckResult(name="home", verdict="failed", found="node [b] is blind", remedy="mount it there")
FULL = CheckResult(name="disk", verdict="failed", found="the disk is full", remedy="make room")


def test_checks_are_told_in_a_table(pretended):
    code, told = pretended([], checks=[CheckResult(name="gpu", verdict="not asked", found="training runs on CPUs")])
    assert (code, "│ gpu   │ not asked │ training runs on CPUs │" in told) == (0, True), told


@pytest.mark.parametrize(
    ("checks", "message"),
    [
        ([BLIND], "error: node [b] is blind; mount it there"),
        ([FULL, BLIND], "error: 2 checks failed, first disk: the disk is full; make room"),
    ],
)
def test_a_failed_check_is_bad_input(pretended, checks, message):
    code, told = pretended([], checks=checks)
    assert (code, told.splitlines()[-1], "│ node [b] is blind │" in told) == (2, message, True), told


def test_a_cluster_that_does_not_answer_is_a_failed_check(capsys):
    with pytest.raises(SystemExit, match="1"):
        run_job("check", ["--cluster.address", "127.0.0.1:9", "--json"])
    printed = capsys.readouterr()
    checks = json.loads(printed.out)["checks"]
    assert [one["verdict"] for one in checks] == ["failed"] + ["not asked"] * 8
    assert "no Ray cluster answers at 127.0.0.1:9" in printed.err
