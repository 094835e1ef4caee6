"""A checkpoint becomes a version of a model in MLflow's registry, which serves by itself."""

import getpass
import shutil
import tempfile
import time
import warnings
from importlib.metadata import version as package_version
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

import captioning
from captioning.checkpoint import inference_files
from cluster.champions import CHALLENGER
from cluster.models import ResolvedModel, one_line
from cluster.registry import EVALUATION_TAG

_SERVED_PACKAGES = ("mlflow", "torch", "torchvision", "numpy", "pandas", "pillow", "pydantic", "safetensors")


def register(model: ResolvedModel, name: str, client: MlflowClient, *, beam_size: int = 3) -> ModelVersion:
    """Register a checkpoint as a new version of ``name`` with the alias ``challenger``.

    The version is an MLflow pyfunc that serves by itself. It carries what is known of it as tags: run, step, digests,
    commit, package versions, and the evaluations of this very checkpoint.

    Raises:
        ValueError: the run that trained it is not in this tracker.
    """
    run_id = model.mlflow_run_id or ""
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise ValueError(
            f"the run {run_id or 'unknown'} of {model.folder.name} is not in this tracker ({one_line(error)}); "
            "use the --tracking.uri or --home it was trained with"
        ) from None
    artifact_path = f"models/step-{model.description.step}-{int(time.time() * 1000)}"
    with tempfile.TemporaryDirectory(prefix="captioning-") as scratch:
        _save_pyfunc(model, Path(scratch), beam_size=beam_size)
        client.log_artifacts(run_id, str(Path(scratch) / "model"), artifact_path)
    _create_name(name, client)
    prefix = f"{EVALUATION_TAG}."
    suffix = f".step-{model.description.step}"
    evaluations = {
        tag.removesuffix(suffix): value
        for tag, value in run.data.tags.items()
        if tag.startswith(prefix) and tag.endswith(suffix)
    }
    tags = {
        "step": str(model.description.step),
        **model.description.lineage,
        **{f"metric.{metric}": f"{value:.6f}" for metric, value in model.description.metrics.items()},
        **{f"package.{package}": package_version(package) for package in _SERVED_PACKAGES},
        "registered_by": getpass.getuser(),
        **evaluations,
    }
    source = f"{run.info.artifact_uri}/{artifact_path}"
    created = client.create_model_version(name, source, run_id=run_id, tags=tags)
    client.set_registered_model_alias(name, CHALLENGER, created.version)
    return created


def _save_pyfunc(model: ResolvedModel, scratch: Path, *, beam_size: int) -> None:
    # Seconds to import, which only registering needs.
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    checkpoint = scratch / "checkpoint"
    checkpoint.mkdir()
    for file_name, path in inference_files(model.folder).items():
        shutil.copyfile(path, checkpoint / file_name)
    columns = Schema([ColSpec(DataType.string, "caption"), ColSpec(DataType.double, "log_probability")])
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # MLflow advises an example and type hints; the signature says more
        mlflow.pyfunc.save_model(
            path=scratch / "model",
            python_model=str(Path(__file__).with_name("serving.py")),
            artifacts={"checkpoint": str(checkpoint)},
            code_paths=[str(Path(captioning.__path__[0]))],
            model_config={"beam_size": beam_size},
            signature=ModelSignature(inputs=Schema([ColSpec(DataType.binary, "image")]), outputs=columns),
            pip_requirements=[f"{name}=={package_version(name).partition('+')[0]}" for name in _SERVED_PACKAGES],
        )


def _create_name(name: str, client: MlflowClient) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise ValueError(f"{name!r} cannot be a model's name ({one_line(error)})") from None
