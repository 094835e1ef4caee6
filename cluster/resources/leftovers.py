"""Leftovers of dead jobs on a cluster: placement groups that hold its resources, and actors that nobody needs.

Ray removes a placement group once it has seen its job and the actor that made it end. One that an actor makes while its
job is ending comes too late for that, and Ray keeps it for ever, with both marks of death missing in its own entry
(Ray 2.60). So jobs and actors are looked up in their own tables.

Ray Train's cleaner, a detached actor, asks the dashboard whether its controller lives, to free what a killed one held;
where there is no dashboard, it goes on asking for ever, and the next controller waits for ever.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cluster.resources.environment import NAMESPACE
from cluster.resources.gcs import Actor, Group, Tables, kill_actor, read_tables, remove_group

logger = logging.getLogger(__name__)

_REMOVAL_SECONDS = 20.0
_POLL_SECONDS = 0.2
_CONTROLLER = "TrainController"


@dataclass(frozen=True, kw_only=True, slots=True)
class Orphan:
    """Something on the cluster whose job is dead, or the controller that made it."""

    kind: Literal["placement group", "actor"]
    id: str
    name: str
    """Name that its maker gave it, or its class."""
    job_id: str
    """Id of the dead job, or of the job of the dead controller."""
    resources: Mapping[str, float]
    """Resources that it holds, or waits for."""
    kept_because: str = ""
    """Why it is needed; empty for a leftover, which nothing needs."""

    @property
    def is_leftover(self) -> bool:
        """Return whether nothing needs it any more."""
        return not self.kept_because

    def __str__(self) -> str:
        """Say what it is."""
        held = ", ".join(f"{amount:g} {name}" for name, amount in self.resources.items())
        named = f" {self.name}" if self.name else ""
        return f"{self.kind}{named} {self.id} of dead job {self.job_id}{f' ({held})' if held else ''}"


def find_orphans(tables: Tables) -> list[Orphan]:
    """Find what dead jobs left: every placement group, and the actors that are Ray Train's cleaners or ours."""
    living = {actor.id for actor in tables.actors if actor.is_alive}
    groups = [
        Orphan(
            kind="placement group",
            id=group.id,
            name=group.name,
            job_id=group.job_id,
            resources=group.resources,
            kept_because=_why_kept(group, living),
        )
        for group in tables.groups
        if group.job_id in tables.dead_jobs
    ]
    actors = [
        Orphan(kind="actor", id=actor.id, name=actor.name or actor.class_name, job_id=actor.job_id, resources={})
        for actor in tables.actors
        if actor.job_id in tables.dead_jobs and actor.is_alive and (_is_cleaner(actor) or _is_coordinator(actor))
    ]
    return [*groups, *actors]


def find_abandoned(tables: Tables, job_id: str) -> list[Orphan]:
    """Find what controllers of Ray Train that were killed left in a job that lives on."""
    dead = {actor.id for actor in tables.actors if not actor.is_alive}
    ours = [actor for actor in tables.actors if actor.job_id == job_id and actor.is_alive]
    has_controller = any(actor.class_name == _CONTROLLER for actor in ours)
    groups = [
        Orphan(kind="placement group", id=group.id, name=group.name, job_id=job_id, resources=group.resources)
        for group in tables.groups
        if group.job_id == job_id and group.actor_id in dead and not group.is_detached
    ]
    actors = [
        Orphan(kind="actor", id=actor.id, name=actor.class_name, job_id=job_id, resources={})
        for actor in ours
        if _is_cleaner(actor) and not has_controller
    ]
    return [*groups, *actors]


def remove_leftovers() -> None:
    """Remove what dead jobs left, and dead controllers of this one, before a controller starts; it never raises."""
    import ray

    try:
        tables = read_tables()
        remove_orphans([*find_orphans(tables), *find_abandoned(tables, ray.get_runtime_context().get_job_id())])
    except Exception as error:  # parts of Ray that no release promises
        logger.warning("what dead jobs held may stay taken: %s", error)


def _why_kept(group: Group, living: set[str]) -> str:
    if group.is_detached:
        return "it was made to outlive its job"
    return "the actor that made it lives" if group.actor_id in living else ""


def _is_cleaner(actor: Actor) -> bool:
    # Its controller is an actor of the same job that is not detached, and so is dead when the job is.
    return actor.class_name == "PlacementGroupCleaner" and actor.module.startswith("ray.train.")


def _is_coordinator(actor: Actor) -> bool:
    return actor.namespace == NAMESPACE and actor.name.startswith("coordinator")


def remove_orphans(orphans: Sequence[Orphan]) -> list[Orphan]:
    """Remove the orphans that nothing needs, and wait until they are gone; return those that are not."""
    leftovers = [one for one in orphans if one.is_leftover]
    for one in leftovers:
        try:
            (remove_group if one.kind == "placement group" else kill_actor)(one.id)
        except ConnectionError as error:
            logger.warning("%s", error)
    deadline = time.monotonic() + _REMOVAL_SECONDS
    while True:
        there = {one.id for one in find_orphans(read_tables())}
        left = [one for one in leftovers if one.id in there]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(_POLL_SECONDS)
