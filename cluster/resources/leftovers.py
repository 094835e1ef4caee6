"""Leftovers of dead jobs on a cluster: placement groups that hold resources, and actors that nothing needs.

Ray removes a placement group when its job and the actor that created it end. A group that an actor creates while its
job is ending is too late for that: Ray keeps it forever, and the group's entry shows neither its job nor its creator as
dead (Ray 2.60). So this module looks up jobs and actors in their own tables.

Ray Train's cleaner, a detached actor, polls the dashboard to learn whether its controller is alive, so that it can free
the resources of a killed one. Without a dashboard it polls forever, and the next controller waits forever.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cluster.resources.environment import NAMESPACE
from cluster.resources.gcs import Actor, ReservedGroup, Tables, kill_actor, read_tables, remove_group

logger = logging.getLogger(__name__)

_REMOVAL_SECONDS = 20.0
_POLL_SECONDS = 0.2
_CONTROLLER = "TrainController"


@dataclass(frozen=True, kw_only=True, slots=True)
class Orphan:
    """A placement group or an actor of a dead job, or of a dead controller of Ray Train."""

    kind: Literal["placement group", "actor"]
    id: str
    name: str
    """Name of the group or actor; for an actor without a name, its class."""
    job_id: str
    """Id of the dead job, or of the dead controller's job."""
    resources: Mapping[str, float]
    """Amounts of the resources that it holds or waits for, by name."""
    kept_because: str = ""
    """Why something still needs it; empty for a leftover."""

    @property
    def is_leftover(self) -> bool:
        """Return whether nothing needs it, so that it can be removed."""
        return not self.kept_because

    def __str__(self) -> str:
        """Return its kind, name, id, job and resources on one line."""
        held = ", ".join(f"{amount:g} {name}" for name, amount in self.resources.items())
        named = f" {self.name}" if self.name else ""
        return f"{self.kind}{named} {self.id} of dead job {self.job_id}{f' ({held})' if held else ''}"


def find_orphans(tables: Tables) -> list[Orphan]:
    """Find the orphans of dead jobs: all placement groups, and the actors that are Ray Train's cleaners or ours."""
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
    """Find the orphans of killed Ray Train controllers in a job that is still alive."""
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
    """Remove the leftovers of dead jobs, and of dead controllers in this job; call it before a controller starts.

    It never raises: an error is only logged.
    """
    import ray

    try:
        tables = read_tables()
        remove_orphans([*find_orphans(tables), *find_abandoned(tables, ray.get_runtime_context().get_job_id())])
    except Exception as error:  # Ray's private interface may change with any release
        logger.warning("leftovers of dead jobs could not be removed and may still hold resources: %s", error)


def _why_kept(group: ReservedGroup, living: set[str]) -> str:
    if group.is_detached:
        return "it is detached, so it outlives its job on purpose"
    return "the actor that created it is alive" if group.actor_id in living else ""


def _is_cleaner(actor: Actor) -> bool:
    # Its controller belongs to the same job and is not detached, so a dead job means that the controller is dead too.
    return actor.class_name == "PlacementGroupCleaner" and actor.module.startswith("ray.train.")


def _is_coordinator(actor: Actor) -> bool:
    return actor.namespace == NAMESPACE and actor.name.startswith("coordinator")


def remove_orphans(orphans: Sequence[Orphan]) -> list[Orphan]:
    """Remove the leftovers among the orphans, and wait until they are gone; return those that remain after 20 s."""
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
