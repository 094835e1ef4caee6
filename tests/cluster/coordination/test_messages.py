import pytest

from cluster.coordination.messages import HeartbeatReply, WorkerInfo, workers_text
from tests.support.case_table import each_case


@pytest.mark.parametrize(
    ("before", "request_", "after"),
    [
        (HeartbeatReply("none", 0), "checkpoint", ("checkpoint", 1)),
        (HeartbeatReply("checkpoint", 1), "stop", ("stop", 2)),
        (HeartbeatReply("stop", 2), "checkpoint", ("stop", 2)),  # nothing comes after a stop
    ],
)
def test_a_request_gets_the_next_number(before, request_, after):
    assert before.with_request(request_) == after


@each_case(("before", "after"), [("checkpoint", "none"), ("stop", "stop"), ("none", "none")])
def test_a_checkpoint_fulfils_a_request_for_one(before, after):
    assert HeartbeatReply(before, 3).after_checkpoint() == (after, 3)


@pytest.mark.parametrize(("num_workers", "text"), [(1, "1 worker"), (2, "2 workers")])
def test_one_worker_is_singular(num_workers, text):
    assert workers_text(num_workers) == text


def test_a_worker_is_named_by_rank_process_and_host():
    assert str(WorkerInfo(rank=1, node_id="n", host="node-2", pid=7, log="")) == "rank 1 (process 7 on node-2)"
