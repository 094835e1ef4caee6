"""Packaging of a checkpoint as an MLflow model, which MLflow can serve without this checkout."""

import base64
import io
import shutil
import warnings
from dataclasses import asdict
from importlib.metadata import version as package_version
from pathlib import Path
from typing import TYPE_CHECKING

import pandas
from PIL import Image

import captioning
from captioning.generation.config import GenerationConfig
from captioning.serving.image_input import ImageInputConfig
from captioning.serving.parameters import default_parameters
from captioning.training.checkpoint_description import inference_files
from cluster.registry.models import ResolvedModel

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

SERVED_PACKAGES = (
    "mlflow",
    "torch",
    "torchvision",
    "numpy",
    "pandas",
    "pillow",
    "pydantic",
    "safetensors",
    "simplejpeg",
)
"""Packages that a served model needs, in the versions that it was registered with."""


def save_package(
    model: ResolvedModel, scratch: Path, *, generation: GenerationConfig, intake: ImageInputConfig
) -> Path:
    """Write a checkpoint as an MLflow pyfunc model that contains its code; return the model's folder.

    Args:
        model: checkpoint to package.
        scratch: empty folder for the model and its parts.
        generation: settings of the search for captions where a request names none.
        intake: sources of images that the served model accepts.
    """
    import mlflow.pyfunc  # takes seconds to import, and only registration needs it

    checkpoint, code = scratch / "checkpoint", scratch / "captioning"
    checkpoint.mkdir()
    for file_name, path in inference_files(model.folder).items():
        shutil.copyfile(path, checkpoint / file_name)
    shutil.copytree(captioning.__path__[0], code, ignore=shutil.ignore_patterns("__pycache__"))
    settings = asdict(intake) | {"allow_paths": str(intake.allow_paths.absolute()) if intake.allow_paths else None}
    signature = _signature(model, generation, intake)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow recommends type hints, and calls a deprecated API of pandas
        mlflow.pyfunc.save_model(
            path=scratch / "model",
            python_model=str(Path(__file__).with_name("serving.py")),
            artifacts={"checkpoint": str(checkpoint)},
            code_paths=[str(code)],
            model_config={"intake": settings, "precision": model.precision, "generation": asdict(generation)},
            signature=signature,
            input_example=_example(),
            pip_requirements=[f"{name}=={package_version(name).partition('+')[0]}" for name in SERVED_PACKAGES],
            uv_project_path=scratch,  # else MLflow stores uv.lock and pyproject.toml of the current folder
        )
    return scratch / "model"


def _signature(model: ResolvedModel, generation: GenerationConfig, intake: ImageInputConfig) -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
    from mlflow.types.schema import Array

    defaults = default_parameters(generation, model.description.max_caption_words)
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
    kinds = {int: DataType.long, float: DataType.double}
    params = ParamSchema([ParamSpec(name, kinds[type(value)], value) for name, value in defaults.items()])
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs), params=params)


def _example() -> pandas.DataFrame:
    """Return an example request with one grey image."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(buffer, "JPEG")
    return pandas.DataFrame({"image": [base64.b64encode(buffer.getvalue()).decode()]})
