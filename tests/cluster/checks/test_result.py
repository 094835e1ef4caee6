import logging

import pytest

from cluster.checks.result import NAMES, CheckResult, check_capacity_result, failed, require, unreachable
from cluster.config import ClusterConfig
from cluster.errors import Refusal, Unreachable
from cluster.resources.capacity import Capacity
from tests.support.case_table import each_case


def test_without_a_cluster_nothing_else_is_asked():
    checks = unreachable(ConnectionError("no Ray cluster reports at x:1 (refused); start it, or correct --address"))
    assert [check.name for check in checks] == list(NAMES)
    assert str(checks[0]) == "no Ray cluster reports at x:1 (refused); start it, or correct --address"


def test_an_error_without_a_remedy_keeps_its_text():
    assert failed("shards", ValueError("broken")) == CheckResult(name="shards", verdict="failed", found="broken")


@pytest.mark.parametrize("kind", [Refusal, Unreachable])
def test_an_error_of_ours_gives_what_was_found_and_what_to_do(kind):
    result = failed("home", kind("the disk; it is full", "make room"))
    assert (result.found, result.remedy) == ("the disk; it is full", "make room")


def test_the_text_of_another_error_is_not_taken_apart():
    result = failed("shards", FileNotFoundError("a.tar is gone;\n it was here; make it again"))
    assert (result.found, result.remedy) == ("a.tar is gone; it was here; make it again", "")


def test_a_job_without_failed_checks_goes_on_with_warnings(caplog, log_lines):
    caplog.set_level(logging.INFO)
    require([
        CheckResult(name="disk", verdict="ok", found="enough"),
        CheckResult(name="resources", verdict="warning", found="room for 1", remedy="wait"),
    ])  # fmt: skip
    assert log_lines() == ["resources: room for 1; wait"]


@pytest.mark.parametrize(("may_pass", "kind"), [(True, Unreachable), (False, Refusal)])
def test_the_first_failed_check_refuses_the_job(may_pass, kind):
    check = CheckResult(name="disk", verdict="failed", found="the disk is full", remedy="make room", may_pass=may_pass)
    with pytest.raises(kind, match=r"^the disk is full; make room$") as refused:
        require([check])
    assert refused.value.remedy == "make room"


@pytest.mark.parametrize(
    ("error", "may_pass"), [(Unreachable("down", "start it"), True), (Refusal("ftp://x is no address", ""), False)]
)
def test_a_server_that_is_down_may_come_back(error, may_pass):
    assert failed("tracking", error).may_pass is may_pass


@each_case(
    ("room", "verdict"),
    [
        (Capacity(2, 2, 0), "ok"),
        (Capacity(2, 1, 0), "warning"),
        (Capacity(0, 0, 2), "ok"),  # the autoscaler makes room
    ],
)
def test_workers_that_cannot_start_now_are_doubtful(room, verdict):
    assert check_capacity_result(ClusterConfig(num_workers=2), room).verdict == verdict


@each_case(
    ("num_workers", "capacity", "found"),
    [
        (1, Capacity(2, 2, 0), "needs 1 worker, room for 2 now"),
        ("1:4", Capacity(2, 2, 0), "needs 1:4 workers, room for 2 now"),
        (2, Capacity(2, 1, 0), "needs 2 workers, room for 1 now, and for 2 once nothing else runs on the cluster"),
        (2, Capacity(0, 0, 3), "needs 2 workers, room for 0 now, and for 3 on nodes that the autoscaler may start"),
    ],
)
def test_the_room_for_workers_is_told(num_workers, capacity, found):
    assert check_capacity_result(ClusterConfig(num_workers=num_workers), capacity).found == found
