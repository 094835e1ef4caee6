"""The captioning model, its training and its evaluation, in plain PyTorch.

Reading order: ``config``, ``data`` (image bytes and captions to tensors), ``model`` (encoder and decoder),
``training`` (the training loop of one process), ``generation`` (beam search), ``evaluation`` (scores). ``serving``
reads the images of a request, ``pages`` renders HTML. Nothing here imports Ray, MLflow or the shard format, so it runs
in any PyTorch process.
"""

__version__ = "0.4.0"
