import os

import psutil
import pytest
import ray
from ray.train.v2._internal.execution.controller.placement_group_cleaner import PlacementGroupCleaner

from cluster.resources import leftovers
from cluster.resources.gcs import Actor, ReservedGroup, Tables
from cluster.resources.leftovers import Orphan, find_abandoned, find_orphans, remove_leftovers, remove_orphans
from tests.support.case_table import each_case

LIVING, DEAD = "01000000", "02000000"
NOBODY = "f" * 32


def group(**changes):
    return ReservedGroup(**{
        "id": "g", "job_id": DEAD, "actor_id": NOBODY, "name": "", "is_detached": False, "resources": {"CPU": 2.0},
        **changes,
    })  # fmt: skip


def actor(**changes):
    return Actor(**{
        "id": "a", "job_id": DEAD, "name": "", "namespace": "x", "class_name": "A", "module": "m", "is_detached": True,
        "is_alive": True, **changes,
    })  # fmt: skip


CLEANER = actor(class_name="PlacementGroupCleaner", module="ray.train.v2._internal.x")
COORDINATOR = actor(name="coordinator/runs/r", namespace="captioning", is_detached=False)


@each_case(
    ("groups", "actors", "found"),
    [
        ([group()], [], [True]),
        ([group(job_id=LIVING)], [], []),
        ([group(job_id="03000000")], [], []),  # an unknown job is not known to be dead
        ([group(actor_id="a")], [actor(is_alive=False)], [True]),
        ([group(actor_id="a")], [], [True]),  # Ray forgets dead actors in the end
        ([group(actor_id="a")], [actor()], [False]),
        ([group(is_detached=True)], [], [False]),
        ([], [CLEANER], [True]),
        ([], [CLEANER._replace(job_id=LIVING)], []),
        ([], [CLEANER._replace(is_alive=False)], []),
        ([], [CLEANER._replace(module="somebody.else")], []),
        ([], [COORDINATOR], [True]),
        ([], [COORDINATOR._replace(job_id=LIVING)], []),
        ([], [COORDINATOR._replace(namespace="other")], []),
        ([], [actor()], []),  # a detached actor of another program
    ],
)
def test_a_leftover_is_what_no_living_job_or_actor_needs(groups, actors, found):
    orphans = find_orphans(Tables(frozenset({DEAD}), actors, groups))
    assert [one.is_leftover for one in orphans] == found


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (group(resources={"CPU": 2.0, "GPU": 0.5}), "placement group g of dead job 02000000 (2 CPU, 0.5 GPU)"),
        (group(name="mine"), "placement group mine g of dead job 02000000 (2 CPU)"),
    ],
)
def test_an_orphan_says_what_it_is(one, text):
    (orphan,) = find_orphans(Tables(frozenset({DEAD}), [], [one]))
    assert str(orphan) == text


def test_what_is_kept_is_not_removed_even_if_asked(monkeypatch):
    monkeypatch.setattr(leftovers, "remove_group", lambda one: pytest.fail(f"removed {one}"))
    monkeypatch.setattr(leftovers, "read_tables", lambda: Tables(frozenset(), [], []))
    kept = Orphan(kind="placement group", id="g", name="", job_id=DEAD, resources={}, kept_because="it must")
    assert remove_orphans([kept]) == []


def test_what_does_not_go_away_is_returned(monkeypatch, log_lines):
    def refuse(actor_id):
        raise ConnectionError(f"no {actor_id}")

    tables = Tables(frozenset({DEAD}), [CLEANER], [])
    monkeypatch.setattr(leftovers, "kill_actor", refuse)
    monkeypatch.setattr(leftovers, "read_tables", lambda: tables)
    monkeypatch.setattr(leftovers, "_REMOVAL_SECONDS", 0.5)
    orphans = find_orphans(tables)
    assert (remove_orphans(orphans), log_lines()) == (orphans, ["no a"])


CONTROLLER = actor(id="c", job_id=LIVING, class_name="TrainController", is_detached=False)
DEAD_CONTROLLER = CONTROLLER._replace(id="d", is_alive=False)


@each_case(
    ("groups", "actors", "found"),
    [
        ([group(job_id=LIVING, actor_id="d")], [DEAD_CONTROLLER], ["g"]),
        ([group(job_id=LIVING, actor_id="d", is_detached=True)], [DEAD_CONTROLLER], []),
        ([group(job_id=LIVING, actor_id="c")], [DEAD_CONTROLLER, CONTROLLER], []),
        ([group(job_id=LIVING)], [DEAD_CONTROLLER], []),  # a driver made it
        ([group(job_id="03000000", actor_id="d")], [DEAD_CONTROLLER], []),  # another job's
        ([], [DEAD_CONTROLLER, CLEANER._replace(job_id=LIVING)], ["a"]),
        ([], [CONTROLLER, CLEANER._replace(job_id=LIVING)], []),
    ],
)
def test_what_dead_controllers_of_a_living_job_left_is_told_from_what_is_needed(groups, actors, found):
    tables = Tables(frozenset({DEAD}), actors, groups)
    assert [one.id for one in find_abandoned(tables, LIVING)] == found


@pytest.mark.cluster
def test_a_placement_group_goes_before_the_next_controller_starts_if_its_maker_was_killed(session):
    class Maker:  # nested, because a worker cannot import this test module
        def make(self):
            made = ray.util.placement_group([{"CPU": 1}])
            ray.get(made.ready())
            return made.id.hex()

    makers = [ray.remote(num_cpus=0)(Maker).remote() for _ in range(2)]
    made = [ray.get(maker.make.remote()) for maker in makers]
    ray.kill(makers[0])
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(makers[0].make.remote())
    remove_leftovers()
    assert [ray.util.placement_group_table()[name]["state"] for name in made] == ["REMOVED", "CREATED"]


@pytest.mark.cluster
def test_a_cleaner_of_ray_without_a_controller_is_ended(session):
    cleaner = ray.remote(num_cpus=0)(PlacementGroupCleaner).options(lifetime="detached").remote("0" * 32, 1.0, 1.0, 1.0)
    process = psutil.Process(ray.get(cleaner.__ray_call__.remote(lambda _: os.getpid())))
    remove_leftovers()
    gone, _ = psutil.wait_procs([process], timeout=30)
    assert gone == [process]
