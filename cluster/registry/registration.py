"""Registration of a checkpoint as a version in MLflow's registry, which MLflow can serve without this checkout."""

import base64
import io
import shutil
import tempfile
import time
import warnings
from dataclasses import asdict, replace
from importlib.metadata import version as package_version
from pathlib import Path
from typing import TYPE_CHECKING

import pandas
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from PIL import Image

import captioning
from captioning.config import Precision
from captioning.serving.image_input import BEAM_SIZES, CAPTION_LENGTHS, ImageInputConfig
from captioning.training.checkpoint_description import inference_files
from cluster.errors import one_line
from cluster.git import git_state
from cluster.registry.champion import CHALLENGER
from cluster.registry.history import ensure_history, is_history
from cluster.registry.models import PRECISION_TAG, ResolvedModel
from cluster.registry.safe_loading import FORMAT_TAG, FORMAT_VERSION
from cluster.registry.scores import EVALUATION_TAG
from cluster.settings import check_model_name
from cluster.tracking.access import is_about_the_request
from cluster.tracking.client import current_user

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

_SERVED_PACKAGES = ("mlflow", "torch", "torchvision", "numpy", "pandas", "pillow", "pydantic", "safetensors")


def register(
    model: ResolvedModel,
    name: str,
    client: MlflowClient,
    *,
    beam_size: int = 3,
    precision: Precision = "fp32",
    intake: ImageInputConfig | None = None,
) -> ModelVersion:
    """Register a checkpoint as a new version of ``name`` with the alias ``challenger``.

    The version is a self-contained MLflow pyfunc model. Its tags name run, step, digests, commits, package versions and
    the evaluations of this checkpoint. It is created after its files are stored, and deleted if the alias cannot be
    set.

    Args:
        model: checkpoint to register.
        name: model's name in the registry.
        client: client of the tracker that holds the run.
        beam_size: beam size for requests that do not name one.
        precision: precision in which the version serves, and in which the gate judges it.
        intake: sources of images that the served version accepts; None for image bytes only.

    Raises:
        ValueError: the run that trained it is not in this tracker, or the name or the beam size is not valid.
    """
    if beam_size not in BEAM_SIZES:
        raise ValueError(f"beam size {beam_size} is out of range; use {BEAM_SIZES.start} to {BEAM_SIZES.stop - 1}")
    check_model_name(name)
    run = _run_of(model, client)
    model = replace(model, precision=precision)
    _create_name(name, client)
    artifact_path = f"models/step-{model.description.step}-{time.time_ns() // 10**6}"
    with tempfile.TemporaryDirectory(prefix="captioning-") as scratch:
        _save_pyfunc(model, Path(scratch), beam_size=beam_size, intake=intake or ImageInputConfig())
        client.log_artifacts(run.info.run_id, str(Path(scratch) / "model"), artifact_path)
    source = f"{run.info.artifact_uri}/{artifact_path}"
    created = client.create_model_version(name, source, run_id=run.info.run_id, tags=_tags_of(model, run))
    try:
        client.set_registered_model_alias(name, CHALLENGER, created.version)
    except MlflowException:
        client.delete_model_version(name, created.version)
        raise
    return created


def _run_of(model: ResolvedModel, client: MlflowClient) -> Run:
    run_id = model.mlflow_run_id or ""
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if not is_about_the_request(error):
            raise
        reason = one_line(error, with_kind=False)
        raise ValueError(
            f"MLflow run {run_id or 'unknown'} of {model.folder.name} is not in this tracker ({reason}); "
            "use the --tracking.uri or --home that it was trained with"
        ) from None


def _tags_of(model: ResolvedModel, run: Run) -> dict[str, str]:
    prefix, suffix = f"{EVALUATION_TAG}.", f".step-{model.description.step}"
    served = git_state()
    return {
        FORMAT_TAG: str(FORMAT_VERSION),
        PRECISION_TAG: model.precision,
        "step": str(model.description.step),
        "vocabulary_digest": model.description.vocabulary_digest,
        **model.description.lineage,
        **{f"metric.{metric}": f"{value:.6f}" for metric, value in model.description.metrics.items()},
        **{f"package.{package}": package_version(package) for package in _SERVED_PACKAGES},
        "registered_by": current_user(),
        # The commit of the code that serves, which may differ from the one that trained.
        "registered_git_commit": served["mlflow.source.git.commit"],
        "registered_git_dirty": served["git.dirty"],
        **{
            tag.removesuffix(suffix): value
            for tag, value in run.data.tags.items()
            if tag.startswith(prefix) and tag.endswith(suffix)
        },
    }


def _save_pyfunc(model: ResolvedModel, scratch: Path, *, beam_size: int, intake: ImageInputConfig) -> None:
    import mlflow.pyfunc  # takes seconds to import, and only registration needs it

    checkpoint, code = scratch / "checkpoint", scratch / "captioning"
    checkpoint.mkdir()
    for file_name, path in inference_files(model.folder).items():
        shutil.copyfile(path, checkpoint / file_name)
    shutil.copytree(captioning.__path__[0], code, ignore=shutil.ignore_patterns("__pycache__"))
    settings = asdict(intake) | {"allow_paths": str(intake.allow_paths.absolute()) if intake.allow_paths else None}
    signature = _signature(model, beam_size, intake)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow recommends type hints, and calls a deprecated API of pandas
        mlflow.pyfunc.save_model(
            path=scratch / "model",
            python_model=str(Path(__file__).with_name("serving.py")),
            artifacts={"checkpoint": str(checkpoint)},
            code_paths=[str(code)],
            model_config={"intake": settings, "precision": model.precision},
            signature=signature,
            input_example=_example(),
            pip_requirements=[f"{name}=={package_version(name).partition('+')[0]}" for name in _SERVED_PACKAGES],
            uv_project_path=scratch,  # else MLflow stores uv.lock and pyproject.toml of the current folder
        )


def _signature(model: ResolvedModel, beam_size: int, intake: ImageInputConfig) -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
    from mlflow.types.schema import Array

    length = min(model.description.max_caption_words, CAPTION_LENGTHS.stop - 1)
    defaults = {"beam": beam_size, "max_length": length, "num_captions": 1}
    is_required = len(intake.columns) == 1
    inputs: list[ColSpec | TensorSpec] = [
        # Not MLflow's binary type, which MLflow decodes before the model runs: one bad row would fail the request.
        ColSpec(DataType.string, column, required=is_required)
        for column in intake.columns
    ]
    outputs: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.string, "caption", required=False),
        ColSpec(Array(DataType.string), "captions", required=False),
        ColSpec(DataType.double, "log_probability", required=False),
        ColSpec(DataType.string, "error", required=False),
    ]
    params = ParamSchema([ParamSpec(parameter, DataType.long, value) for parameter, value in defaults.items()])
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs), params=params)


def _example() -> pandas.DataFrame:
    """Return an example request with one grey image."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(buffer, "JPEG")
    return pandas.DataFrame({"image": [base64.b64encode(buffer.getvalue()).decode()]})


def _create_name(name: str, client: MlflowClient) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if not is_about_the_request(error):
            raise
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            reason = one_line(error, with_kind=False)
            raise ValueError(f"{name!r} is not a valid model name ({reason}); choose another name") from None
        if is_history(client.get_registered_model(name)):
            raise ValueError(f"{name} is the history of another model; choose another name") from None
    # Created together with the model: with authentication, MLflow lets a registered model's creator write it, so the
    # owner of the model also owns its history, before another user can take the name.
    ensure_history(name, client)
