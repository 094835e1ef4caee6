"""The Python API: one typed function for each step, from photographs with captions to a promoted model.

The functions take the configurations of the command line, return values, raise exceptions, and print nothing. Relative
paths are those of the current folder. Ray and MLflow are imported when a function needs them, not before.

Reading order: ``arguments``, ``training`` (convert, train, submit), ``models`` (evaluate, load, register, promote).
Nothing in this project imports this package.

Example:
    from cluster.api import load

    print(load("models:/captioner@champion").caption("photo.jpg"))
"""

from captioning.config import ModelConfig, OptimizerConfig, TrainingConfig
from captioning.generation.config import GenerationConfig
from captioning.serving.image_input import ImageInputConfig
from cluster.api.models import evaluate, load, mlflow_evaluation, promote, register
from cluster.api.training import convert, submit, train
from cluster.config import ClusterConfig, StorageConfig, TrackingConfig, TrainRun, ValidationConfig
from cluster.data.conversion_config import ConversionConfig
from cluster.presets import TRAIN_PRESETS, preset
from cluster.promotion.gate_config import GateConfig

__all__ = [
    "TRAIN_PRESETS", "ClusterConfig", "ConversionConfig", "GateConfig", "GenerationConfig", "ImageInputConfig",
    "ModelConfig", "OptimizerConfig", "StorageConfig", "TrackingConfig", "TrainRun", "TrainingConfig",
    "ValidationConfig",
    "convert", "evaluate", "load", "mlflow_evaluation", "preset", "promote", "register", "submit", "train",
]  # fmt: skip
