"""Tables of a cluster's control service (GCS), read directly, because Ray's public state API needs a dashboard.

This is the only file that uses Ray's private interface to the GCS. All functions but ``ask_version`` need a Ray
session; without one, Ray raises an error.
"""

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from cluster.errors import one_line

_KILL_SECONDS = 10
_ALIVE_SECONDS = 5
_NO_LIMIT = 10_000  # number of nodes that stands for a node group without a limit


class Node(NamedTuple):
    """A living node.

    Attributes:
        id: Ray's id of the node, in hex.
        address: the node's IP address.
        total: amounts of all resources, by name.
        free: amounts of the resources that are not reserved, by name.
    """

    id: str
    address: str
    total: Mapping[str, float]
    free: Mapping[str, float]


class Actor(NamedTuple):
    """An actor, alive or dead; when its job dies, only a detached actor should stay alive."""

    id: str
    job_id: str
    name: str
    namespace: str
    class_name: str
    module: str
    is_detached: bool
    is_alive: bool


class ReservedGroup(NamedTuple):
    """A placement group that is not removed.

    Attributes:
        actor_id: id of the actor that created the group; all f if a driver or a task did.
        resources: sum of the resources of all bundles, by name.
    """

    id: str
    job_id: str
    actor_id: str
    name: str
    is_detached: bool
    resources: Mapping[str, float]


class Tables(NamedTuple):
    """All actors and placement groups, and the ids of the dead jobs."""

    dead_jobs: frozenset[str]
    actors: list[Actor]
    groups: list[ReservedGroup]


class NodeGroup(NamedTuple):
    """A kind of node that the autoscaler may start.

    Attributes:
        name: the autoscaler's name of the kind.
        resources: amounts of each node's resources, by name.
        max_nodes: largest number of nodes of this kind at once.
    """

    name: str
    resources: Mapping[str, float]
    max_nodes: int


def ask_version(address: str) -> str:
    """Return the version of Ray at host:port; needs no session, and returns or raises within seconds.

    Raises:
        PermissionError: the cluster rejects this process's token, or requires one.
        ConnectionError: nothing answers, or something other than Ray.
    """
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
    from ray.exceptions import RayError

    channel: Any = None
    try:
        channel = init_grpc_channel(address)
        request = _messages("gcs_service").CheckAliveRequest()
        return NodeInfoGcsServiceStub(channel).CheckAlive(request, timeout=_ALIVE_SECONDS).ray_version
    except RayError as error:  # about tokens: Ray itself raises only before the request is sent
        raise PermissionError(one_line(error, with_kind=False)) from error
    except Exception as error:  # gRPC's errors: grpcio is a dependency of Ray, not of this project
        code, reason = _rpc_error(error)
        raise (PermissionError if code == "UNAUTHENTICATED" else ConnectionError)(reason) from error
    finally:
        if channel:
            channel.close()


def _rpc_error(error: Any) -> tuple[str, str]:  # noqa: ANN401  as above
    """Return the status name and the one-line reason of a gRPC error; the name is empty for any other error."""
    if not hasattr(error, "details"):
        return "", one_line(error)
    return error.code().name, one_line(error.details() or "")


def autoscaled_groups() -> list[NodeGroup]:
    """Return the kinds of nodes that the autoscaler has reported to the GCS; none without an autoscaler."""
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
    # Groups first: the job and the actor that created a group are then certain to be in the tables read after it.
    groups = [group_kind.FromString(row) for row in accessor.get_placement_group_table()]
    actors = [actor_kind.FromString(row) for row in accessor.get_actor_table(None, None)]
    dead_jobs = frozenset(job["JobID"] for job in state.job_table() if job["IsDead"])
    return Tables(
        dead_jobs,
        [_actor(row, is_alive=row.state != actor_kind.DEAD) for row in actors],
        [_group(row) for row in groups if row.state != group_kind.REMOVED],
    )


def _messages(name: str) -> Any:  # noqa: ANN401  modules generated when Ray is built have no types
    """Return Ray's module of protobuf messages with this name."""
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


def _group(row: Any) -> ReservedGroup:  # noqa: ANN401  as above
    resources: dict[str, float] = {}
    for bundle in row.bundles:
        for name, amount in bundle.unit_resources.items():
            resources[name] = resources.get(name, 0.0) + amount
    return ReservedGroup(
        id=row.placement_group_id.hex(),
        job_id=row.creator_job_id.hex(),
        actor_id=row.creator_actor_id.hex(),
        name=row.name,
        is_detached=row.is_detached,
        resources=resources,
    )


def remove_group(group_id: str) -> None:
    """Request the removal of a placement group; the removal itself completes later."""
    from ray import PlacementGroupID
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group_id))))


def kill_actor(actor_id: str) -> None:
    """Request the death of an actor, without a restart.

    ``ray.kill`` needs an actor handle, and for an actor without a name there is no way to get one.

    Raises:
        ConnectionError: the control service does not accept the request.
    """
    import ray
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated.gcs_service_pb2_grpc import ActorInfoGcsServiceStub

    kind = _messages("gcs_service").KillActorViaGcsRequest
    request = kind(actor_id=bytes.fromhex(actor_id), force_kill=True, no_restart=True)
    channel: Any = init_grpc_channel(ray.get_runtime_context().gcs_address)
    try:
        ActorInfoGcsServiceStub(channel).KillActorViaGcs(request, timeout=_KILL_SECONDS)
    except Exception as error:  # gRPC's errors, as above
        cause = one_line(error, with_kind=False)
        raise ConnectionError(f"Ray's control service did not kill actor {actor_id} ({cause}); try again") from error
    finally:
        channel.close()
