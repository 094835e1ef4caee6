"""Tensors: the model and its mathematics, in plain PyTorch.

Reading order: ``config``, ``data`` (bytes and captions to tensors), ``model`` (encoder and decoder), ``training``
(the loop of one process), ``generation`` (beam search), ``evaluation`` (scores). ``serving`` reads a request's
images, ``pages`` renders HTML. Nothing here knows shards, Ray or MLflow: it trains in any PyTorch process.
"""
