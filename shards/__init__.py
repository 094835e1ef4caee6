"""Bytes at rest: captioned images in, tar shards out, samples back.

Reading order: ``samples`` and ``images`` (one sample), ``writer`` (plan and write), ``manifest``, ``verification``,
``reader``, ``order`` (position to sample number). Around it: ``sources`` (COCO), ``archives`` (downloads), ``storage``
(folders and URLs), ``features``, ``synthetic``. Nothing here knows torch, Ray or MLflow: any Python process reads
shards with it.
"""
