"""Captioned images stored as tar shards: written, verified, read back, and put in training order.

Reading order: ``samples`` and ``images`` (one sample), ``writer`` (plan and write), ``manifest``, ``verification``,
``reader``, ``order`` (position to sample number). Around it: ``imaging`` (what ``images`` uses), ``sources`` (COCO),
``archives`` (downloads), ``storage`` (folders and URLs), ``features``, ``synthetic``. Nothing imports torch, Ray or
MLflow, so any Python process can read shards.
"""
