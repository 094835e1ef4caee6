"""From photographs to a trained run: ``convert``, ``train`` and ``submit``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.api.arguments import as_location, with_locations
from cluster.config import ClusterConfig, TrainRun
from cluster.data.conversion_config import ConversionConfig
from cluster.resources.environment import set_library_defaults
from cluster.settings import with_absolute_paths
from shards.storage.location import with_home

if TYPE_CHECKING:
    from cluster.submission.submit import ResolvedJob
    from cluster.training.trainer import TrainOutcome
    from shards.manifest import Manifest


def convert(
    source: Path | str,
    shards: Path | str,
    *,
    config: ConversionConfig | None = None,
    num_workers: int | None = None,
    cluster: ClusterConfig | None = None,
) -> "Manifest":
    """Convert photographs with captions to a shard set; shards that an earlier call wrote are kept.

    Args:
        source: folder of the images and captions, in one of the forms of captioning convert.
        shards: shard set to write: a folder, or any URL that fsspec supports.
        config: settings of the conversion; None for the defaults.
        num_workers: number of shards written at once, each by a Ray actor; 0 writes without Ray; None for the
            default of captioning convert.
        cluster: Ray cluster of the tasks; None for RAY_ADDRESS, or one that starts on this machine.

    Raises:
        FileNotFoundError: the source, its annotations or a split is missing.
        ValueError: the annotations or an image are faulty, or the folder has another shard set.
    """
    from cluster.data import conversion
    from cluster.data.output import writing_to

    with writing_to(as_location(shards)):
        plan = conversion.plan_conversion(
            with_home(Path(source)).absolute(), as_location(shards), config or ConversionConfig()
        )
        workers = conversion.default_workers(plan, cluster or ClusterConfig()) if num_workers is None else num_workers
        return conversion.convert(plan, num_workers=workers, cluster=cluster)


def train(run: TrainRun) -> "TrainOutcome":
    """Train a run to its end, from its last checkpoint if it has one; a finished run is returned as it is.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: the run cannot work with this configuration.
        ConnectionError: the cluster or the tracker does not answer.
        RuntimeError: training failed; the message says why.
        KeyboardInterrupt: the process received SIGINT; a checkpoint was requested first.
    """
    set_library_defaults()
    from cluster.training.trainer import fit

    return fit(with_absolute_paths(with_locations(run)))


def submit(
    run: TrainRun,
    *,
    address: str | None = None,
    name: str | None = None,
    working_dir: Path | str | None = None,
    runtime_env: Path | str | None = None,
    env: Sequence[str] = (),
) -> "ResolvedJob":
    """Submit a training run to a Ray cluster; a live job with the same name and settings is returned instead.

    Args:
        run: the run, with paths as the cluster's nodes see them.
        address: address of Ray's dashboard, http://HOST:8265; None for RAY_API_SERVER_ADDRESS.
        name: name of the job; None for the name of the run.
        working_dir: folder of the code to upload; None for the checkout around the current folder, or the packages
            that run here.
        runtime_env: YAML file of a Ray runtime environment, for what the cluster lacks.
        env: names of environment variables to forward to the job.

    Raises:
        FileNotFoundError: the folder lacks the code.
        ValueError: a path is relative, the cluster cannot run the job, or a live job with other settings has the name.
        ConnectionError: the cluster does not answer.
        RuntimeError: the cluster refuses the job.
    """
    from cluster.submission.job_server import JobServer
    from cluster.submission.training import submit_training

    return submit_training(
        with_locations(run),
        JobServer(address),
        name=name,
        working_dir=Path(working_dir) if working_dir else None,
        runtime_env=Path(runtime_env) if runtime_env else None,
        env=env,
    )
