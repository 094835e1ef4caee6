"""The registered model, as MLflow loads and serves it: JPEG bytes in, a caption out.

MLflow runs this file by itself where it serves a model (models from code), beside a copy of ``captioning``.
"""

from pathlib import Path
from typing import Any

import mlflow.models
import pandas
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from captioning.checkpoint import load_model
from captioning.evaluation import Captioner

CHECKPOINT_ARTIFACT = "checkpoint"
_BATCH_SIZE = 16


class CaptionService(PythonModel):
    """Captions images by beam search."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the checkpoint that was registered."""
        beam_size = int(context.model_config.get("beam_size", 3))
        checkpoint = Path(context.artifacts[CHECKPOINT_ARTIFACT])
        self._captioner = Captioner(*load_model(checkpoint), beam_size=beam_size, batch_size=_BATCH_SIZE)

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]  MLflow wraps it, and calls it so
        self, context: PythonModelContext, model_input: pandas.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, str | float]]:
        """Caption the column ``image`` of a data frame.

        Args:
            context: of MLflow.
            model_input: data frame with a column ``image`` of JPEG or PNG bytes; over HTTP, base64.
            params: none are used.

        Returns:
            ``caption`` and ``log_probability`` in nats, one for each row.

        Raises:
            ValueError: an image does not decode.
        """
        written = self._captioner.write(bytes(image) for image in model_input["image"])
        return [{"caption": one.captions[0], "log_probability": one.log_probability} for one in written]


mlflow.models.set_model(CaptionService())
