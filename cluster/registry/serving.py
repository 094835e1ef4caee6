"""Registered model as MLflow loads and serves it: images in, captions out.

MLflow runs this file alone ("models from code"), next to a copy of ``captioning``, in the process that serves the
model. It also runs it once at registration, which is faster without importing torch.
"""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow.models
import pandas
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from pydantic import TypeAdapter

from captioning.generation.config import GenerationConfig
from captioning.serving.image_input import ImageInputConfig, read_image
from captioning.serving.parameters import requested_settings

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINT_ARTIFACT = "checkpoint"
_BATCH_SIZE = 16
_MAX_DECODERS = 2  # over all requests: the largest images take 0.3 GiB and a core for a second each


class CaptionService(PythonModel):
    """Captions images by beam search or sampling."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the registered checkpoint, and the sources of images that the version accepts."""
        import torch

        from captioning.evaluation.captioner import Captioner
        from captioning.training.checkpoint import load_model

        self._intake = TypeAdapter(ImageInputConfig).validate_python(context.model_config["intake"])
        self._generation = TypeAdapter(GenerationConfig).validate_python(context.model_config["generation"])
        self._decoders = threading.BoundedSemaphore(_MAX_DECODERS)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        loaded = load_model(Path(context.artifacts[CHECKPOINT_ARTIFACT]), device=device)
        self._captioner = Captioner(*loaded, precision=context.model_config["precision"])

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]  MLflow calls it with these arguments
        self, context: PythonModelContext, model_input: pandas.DataFrame, params: dict[str, Any]
    ) -> pandas.DataFrame:
        """Caption the image of each row.

        Args:
            context: MLflow's context.
            model_input: one row per image, with the columns that ``read_image`` reads.
            params: those of ``captioning.serving.parameters``; MLflow adds the signature's defaults.

        Returns:
            One row per image, with ``caption``, ``log_probability`` in nats, and ``error``, which alone is set if there
            is no caption; also ``captions``, best first, if the request asks for more than one.

        Raises:
            MlflowException: a parameter is out of range, there are too many rows, or no row has a known column; over
                HTTP, the response is 400.
        """
        if not len(model_input.columns):  # MLflow drops unknown columns, and then rows without any
            raise MlflowException.invalid_parameter_value(
                f"no row has a value in column {' or '.join(self._intake.columns)}; give each row one"
            )
        if len(model_input) > self._intake.max_rows:
            raise MlflowException.invalid_parameter_value(
                f"the request has {len(model_input)} rows; send at most {self._intake.max_rows} at a time"
            )
        try:
            generation = requested_settings(params, self._generation)
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(f"{error}") from None
        rows = model_input.astype(object).where(model_input.notna(), None).to_dict("records")
        answers: list[dict[str, Any]] = []
        with ThreadPoolExecutor(_BATCH_SIZE) as pool:  # fetches several URLs at once
            for start in range(0, len(rows), _BATCH_SIZE):
                taken = pool.map(self._take, rows[start : start + _BATCH_SIZE])
                answers += self._caption([self._decode(one) for one in taken], generation, params)
        return pandas.DataFrame(answers, dtype=object)  # objects keep None, which JSON has, from becoming NaN

    def _take(self, row: Mapping[str, object]) -> bytes | str:
        """Return the image's bytes, or the error as text."""
        try:
            return read_image(row, self._intake)
        except (ValueError, OSError) as error:
            return str(error)

    def _decode(self, taken: bytes | str) -> "Tensor | str":
        if isinstance(taken, str):
            return taken
        try:
            with self._decoders:
                return self._captioner.decode(taken)
        except ValueError as error:
            return str(error)

    def _caption(
        self, opened: "Sequence[Tensor | str]", generation: GenerationConfig, params: Mapping[str, int]
    ) -> list[dict[str, Any]]:
        import torch

        written = iter(())
        if images := [one for one in opened if not isinstance(one, str)]:
            batch = torch.stack(images)
            written = iter(self._captioner.caption_batch(batch, generation=generation, max_words=params["max_length"]))
        answers: list[dict[str, Any]] = []
        for one in opened:
            captions, log_probability = (None, None) if isinstance(one, str) else next(written)
            several = {"captions": captions and list(captions[: params["num_captions"]])}
            answers.append(
                {
                    "caption": captions and captions[0],
                    **(several if params["num_captions"] > 1 else {}),
                    "log_probability": log_probability,
                    "error": one if isinstance(one, str) else None,
                }
            )
        return answers


mlflow.models.set_model(CaptionService())
