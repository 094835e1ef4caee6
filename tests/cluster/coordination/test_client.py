"""Tests of a client's state in the rank's process; ``tests/faults`` tests it against a coordinator."""

import pytest

from cluster.coordination.client import CoordinatorClient
from cluster.coordination.messages import HeartbeatReply


@pytest.fixture
def client():
    return CoordinatorClient(None, 0, batch_size=8)


def test_a_request_is_returned_once(client):
    client._reply = HeartbeatReply("checkpoint", 1)
    assert [client.requests(), client.requests()] == [(True, False, False), (False, False, False)]


def test_a_request_to_stop_asks_for_a_checkpoint_as_well(client):
    client._reply = HeartbeatReply("stop", 1)
    assert client.requests() == (True, True, False)


def test_the_same_request_with_another_number_is_returned_again(client):
    found = []
    for number in (1, 2):
        client._reply = HeartbeatReply("checkpoint", number)
        found.append(client.requests().checkpoint)
    assert found == [True, True]


def test_a_heartbeat_says_at_which_step_the_rank_is_and_that_it_makes_progress(client):
    before = client._progress
    client.heartbeat(3)
    assert (client.step, client._progress > before) == (3, True)
