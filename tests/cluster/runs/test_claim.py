import json
import pickle
import queue

import pytest

from cluster.config import StorageConfig
from cluster.errors import Refusal
from cluster.runs import claim as claims
from cluster.runs import pruning
from cluster.runs.checkpoint_store import CheckpointStore
from cluster.runs.claim import YOUNG_SECONDS, Claim, ClaimLostError, claimed
from cluster.runs.pruning import Pruner
from cluster.runs.record import CommittedCheckpoint, RunRecord
from tests.support.clock import Clock


class PartitionedStore(CheckpointStore):
    """Store that does not answer while ``is_cut_off``."""

    is_cut_off = False

    def file_names(self):
        if self.is_cut_off:
            raise ConnectionError("no route to the store")
        return super().file_names()


@pytest.fixture(params=["folder", "memory", pytest.param("s3", marks=pytest.mark.cluster)])
def url(request, tmp_path):
    """Return an empty location of each kind."""
    return str(tmp_path / "r") if request.param == "folder" else request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def clock():
    return Clock(1000.0)


@pytest.fixture
def first(url, clock):
    """Return the claim of the home folder that owns the location."""
    claim = Claim(PartitionedStore(url), "one", "process 1 on east", clock)
    claim.take()
    return claim


@pytest.fixture
def second(url, clock):
    return Claim(CheckpointStore(url), "two", "process 2 on west", clock)


def test_a_second_home_is_refused_while_the_first_is_alive(first, second, clock):
    for _ in range(3):
        clock.now += YOUNG_SECONDS - 1
        first.renew()
    clock.now += 5
    with pytest.raises(
        Refusal,
        match=r"belong to process 1 on east, which showed 5 s ago that it is alive; .* use --take-over, or wait",
    ):
        second.take()
    first.require()


def test_the_same_home_goes_on_at_once_after_a_crash(first, url, clock):
    again = Claim(CheckpointStore(url), "one", "process 3 on east", clock)
    again.take()
    assert [again.store.file_names(), first.require()] == [["owner-1.json"], None]


def test_what_was_given_up_is_free(first, second):
    first.release()
    second.take()
    second.require()


def test_an_owner_that_was_cut_off_comes_back_and_owns_nothing(first, second, clock):
    first.store.is_cut_off = True
    with pytest.raises(ConnectionError, match="no route"):
        first.renew()
    clock.now += YOUNG_SECONDS
    second.take()
    first.store.is_cut_off = False
    for act in (first.require, first.renew, first.release):
        with pytest.raises(
            ClaimLostError, match="belong to process 2 on west; this process stores none there any more"
        ):
            act()
    second.renew()
    assert second.store.file_names() == ["owner-2.json"]


def test_an_owner_that_comes_back_after_the_next_one_has_ended_owns_nothing(first, second, clock):
    clock.now += YOUNG_SECONDS
    second.take()
    second.release()
    with pytest.raises(ClaimLostError, match="were taken over by another process"):
        first.require()


def test_a_person_may_take_over_at_once(first, second):
    second.take(by_force=True)
    with pytest.raises(ClaimLostError, match="belong to process 2 on west"):
        first.require()


def test_of_two_that_take_an_old_claim_over_one_is_refused(first, second, url, clock, monkeypatch):
    third = Claim(CheckpointStore(url), "three", "process 3 on south", clock)
    clock.now += YOUNG_SECONDS
    create = CheckpointStore.create_file

    def create_later(store, name, content):
        monkeypatch.setattr(CheckpointStore, "create_file", create)
        third.take()
        create(store, name, content)

    monkeypatch.setattr(CheckpointStore, "create_file", create_later)
    with pytest.raises(Refusal, match="belong to process 3 on south"):
        second.take()
    third.require()


def test_an_answer_that_was_lost_does_not_hide_the_own_claim(second, monkeypatch):
    create = CheckpointStore.create_file

    def create_twice(store, name, content):
        create(store, name, content)
        create(store, name, content)

    monkeypatch.setattr(CheckpointStore, "create_file", create_twice)
    second.take()
    second.require()


def test_a_claim_that_cannot_be_read_is_only_replaced_by_a_person(second):
    second.store.create_file("owner-4.json", b"")
    with pytest.raises(Refusal, match="belong to an unknown process"):
        second.take()
    second.take(by_force=True)
    assert second.store.file_names() == ["owner-5.json"]


def test_nothing_is_removed_by_an_owner_that_was_cut_off(first, second, tmp_path, monkeypatch):
    told = queue.Queue()
    monkeypatch.setattr(pruning.logger, "warning", lambda form, *values: told.put(form % values))
    location = str(first.store).removesuffix("/r")
    first.store.put_file("step-00000004-attempt-2/checkpoint.json", b"{}")
    first.store.put_file("run.json", b"the second's")
    second.take(by_force=True)
    stale = RunRecord(name="r", identity={}, attempt=3, checkpoints_at=location)
    Pruner(tmp_path / "r", stale, require_owner=first.require).prune(stale)
    assert "nothing is removed: the files at" in told.get(timeout=20)
    assert (second.store.names(), second.store.get_file("run.json")) == (["step-00000004-attempt-2"], b"the second's")


def test_the_owner_is_looked_for_before_each_removal(first, second):
    for step in (1, 2):
        first.store.put_file(f"step-0000000{step}-attempt-1/checkpoint.json", b"{}")
    looks = iter([first.require, lambda: second.take(by_force=True)])

    def require():
        next(looks, lambda: None)()
        first.require()

    kept = CommittedCheckpoint(step=9, attempt=3)
    with pytest.raises(ClaimLostError):
        pruning.remove_uncounted(
            first.store, RunRecord(name="r", identity={}, attempt=3, checkpoints=(kept,)), require_owner=require
        )
    assert first.store.names() == ["step-00000002-attempt-1"]


def test_a_claim_travels_to_other_processes(tmp_path):
    claim = Claim(CheckpointStore(str(tmp_path)), "one", "process 1 on east")
    claim.take()
    pickle.loads(pickle.dumps(claim)).require()


def test_checkpoints_in_the_home_folder_need_no_claim(tmp_path):
    with claimed(tmp_path, StorageConfig(home=tmp_path)) as claim:
        assert claim is None


def test_a_driver_renews_its_claim_and_gives_it_up_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "RENEW_SECONDS", 0.01)
    renewed = queue.Queue()
    monkeypatch.setattr(Claim, "renew", lambda claim: renewed.put(claim))
    home, storage = tmp_path / "home" / "r", StorageConfig(checkpoints=str(tmp_path / "bucket"))
    with claimed(home, storage) as claim:
        held = json.loads((tmp_path / "bucket" / "r" / "owner-1.json").read_text())
        assert renewed.get(timeout=20) == claim
    assert (held["token"], list((tmp_path / "bucket" / "r").iterdir())) == ((home / "claim-token").read_text(), [])


def test_another_home_is_refused_until_it_takes_over(tmp_path):
    bucket = str(tmp_path / "bucket")
    first, second = (tmp_path / home / "r" for home in ("one", "two"))
    with claimed(first, StorageConfig(checkpoints=bucket)):
        with pytest.raises(Refusal, match=rf"bucket/r belong to process \d+ on .*, which runs {first}, which showed"):
            claimed(second, StorageConfig(checkpoints=bucket)).__enter__()
        with claimed(second, StorageConfig(checkpoints=bucket, take_over=True)) as claim:
            claim.require()


def test_a_store_that_ignores_that_a_file_must_not_exist_is_refused(url, clock, monkeypatch):
    monkeypatch.setattr(CheckpointStore, "create_file", CheckpointStore.put_file)
    claim = Claim(CheckpointStore(url), "one", "process 1 on east", clock)
    with pytest.raises(Refusal, match=r"it ignores If-None-Match.*; use a store that supports it"):
        claim.take()
    assert claim.store.file_names() == []
