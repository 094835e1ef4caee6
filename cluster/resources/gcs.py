"""Tables of a cluster's control service (GCS), read from itself: Ray's public state API needs a dashboard.

The only file that uses Ray's private interface to it. All but ``ask_version`` need a session, or Ray raises.
"""

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from cluster.errors import one_line

_KILL_SECONDS = 10
_ALIVE_SECONDS = 5
_NO_LIMIT = 10_000


class Node(NamedTuple):
    """A living node.

    Attributes:
        id: Ray's id, in hex.
        address: its IP address.
        total: all resources of the node, by name.
        free: the part of them that nobody has reserved.
    """

    id: str
    address: str
    total: Mapping[str, float]
    free: Mapping[str, float]


class Actor(NamedTuple):
    """An actor; one of a dead job lives on only if it is detached, or was missed."""

    id: str
    job_id: str
    name: str
    namespace: str
    class_name: str
    module: str
    is_detached: bool
    is_alive: bool


class Group(NamedTuple):
    """A placement group that was not removed.

    Attributes:
        actor_id: id of the actor that made it; all f if a driver or task did.
        resources: resources of all its bundles together.
    """

    id: str
    job_id: str
    actor_id: str
    name: str
    is_detached: bool
    resources: Mapping[str, float]


class Tables(NamedTuple):
    """Actors and placement groups, and the jobs that are dead."""

    dead_jobs: frozenset[str]
    actors: list[Actor]
    groups: list[Group]


class NodeGroup(NamedTuple):
    """Nodes of one kind that the autoscaler may start.

    Attributes:
        name: the autoscaler's name for the kind.
        resources: resources of each node, by name.
        max_nodes: most nodes of the kind at once.
    """

    name: str
    resources: Mapping[str, float]
    max_nodes: int


def ask_version(address: str) -> str:
    """Return the version of Ray at host:port; needs no session, and ends within some seconds whatever is there.

    Raises:
        PermissionError: the cluster wants another token than this process has.
        ConnectionError: what answers is not Ray, or nothing answers.
    """
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
    from ray.exceptions import RayError

    channel: Any = None
    try:
        channel = init_grpc_channel(address)
        request = _messages("gcs_service").CheckAliveRequest()
        return NodeInfoGcsServiceStub(channel).CheckAlive(request, timeout=_ALIVE_SECONDS).ray_version
    except RayError as error:  # of tokens, for no request was sent yet
        raise PermissionError(one_line(error, with_kind=False)) from error
    except Exception as error:  # gRPC's own, whose package is a dependency of Ray's and not of ours
        code, reason = _rpc_error(error)
        raise (PermissionError if code == "UNAUTHENTICATED" else ConnectionError)(reason) from error
    finally:
        if channel:
            channel.close()


def _rpc_error(error: Any) -> tuple[str, str]:  # noqa: ANN401  as above
    """Return the name of the status and the reason, in one line, of an error of gRPC's."""
    if not hasattr(error, "details"):
        return "", one_line(error)
    return error.code().name, one_line(error.details() or "")


def autoscaled_groups() -> list[NodeGroup]:
    """Return the nodes that the autoscaler may start, as it reported them to the control service; none without one."""
    from ray._private.state import state

    state._connect_and_get_accessor()
    config = state.get_cluster_config()
    groups = config.node_group_configs if config else ()
    return [
        NodeGroup(group.name, dict(group.resources), group.max_count if group.max_count >= 0 else _NO_LIMIT)
        for group in groups
    ]


def list_nodes() -> list[Node]:
    """Return the living nodes."""
    import ray
    from ray._private.state import available_resources_per_node

    free = available_resources_per_node()
    return [
        Node(row["NodeID"], row["NodeManagerAddress"], row["Resources"], free.get(row["NodeID"], {}))
        for row in ray.nodes()
        if row["Alive"]
    ]


def read_tables() -> Tables:
    """Read the tables of jobs, actors and placement groups."""
    from ray._private.state import state

    group_kind, actor_kind = _messages("gcs").PlacementGroupTableData, _messages("gcs").ActorTableData
    accessor = state._connect_and_get_accessor()
    # In this order: whatever made a group that is found is in the tables read after it.
    groups = [group_kind.FromString(row) for row in accessor.get_placement_group_table()]
    actors = [actor_kind.FromString(row) for row in accessor.get_actor_table(None, None)]
    dead_jobs = frozenset(job["JobID"] for job in state.job_table() if job["IsDead"])
    return Tables(
        dead_jobs,
        [_actor(row, is_alive=row.state != actor_kind.DEAD) for row in actors],
        [_group(row) for row in groups if row.state != group_kind.REMOVED],
    )


def _messages(name: str) -> Any:  # noqa: ANN401  generated when Ray was built: its contents have no types
    return importlib.import_module(f"ray.core.generated.{name}_pb2")


def _actor(row: Any, *, is_alive: bool) -> Actor:  # noqa: ANN401  Ray's messages have no type
    return Actor(
        id=row.actor_id.hex(),
        job_id=row.job_id.hex(),
        name=row.name,
        namespace=row.ray_namespace,
        class_name=row.class_name,
        module=row.function_descriptor.python_function_descriptor.module_name,
        is_detached=row.is_detached,
        is_alive=is_alive,
    )


def _group(row: Any) -> Group:  # noqa: ANN401  as above
    resources: dict[str, float] = {}
    for bundle in row.bundles:
        for name, amount in bundle.unit_resources.items():
            resources[name] = resources.get(name, 0.0) + amount
    return Group(
        id=row.placement_group_id.hex(),
        job_id=row.creator_job_id.hex(),
        actor_id=row.creator_actor_id.hex(),
        name=row.name,
        is_detached=row.is_detached,
        resources=resources,
    )


def remove_group(group_id: str) -> None:
    """Ask for a placement group to be removed, which takes a moment."""
    from ray import PlacementGroupID
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group_id))))


def kill_actor(actor_id: str) -> None:
    """Ask for an actor to be killed and not restarted; ``ray.kill`` wants a handle, and one without name gives none.

    Raises:
        ConnectionError: the control service does not take the request.
    """
    import ray
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated.gcs_service_pb2_grpc import ActorInfoGcsServiceStub

    kind = _messages("gcs_service").KillActorViaGcsRequest
    request = kind(actor_id=bytes.fromhex(actor_id), force_kill=True, no_restart=True)
    channel: Any = init_grpc_channel(ray.get_runtime_context().gcs_address)
    try:
        ActorInfoGcsServiceStub(channel).KillActorViaGcs(request, timeout=_KILL_SECONDS)
    except Exception as error:  # gRPC's own, whose package is a dependency of Ray's and not of ours
        cause = one_line(error, with_kind=False)
        raise ConnectionError(f"Ray's control service does not kill actor {actor_id} ({cause}); try again") from error
    finally:
        channel.close()
