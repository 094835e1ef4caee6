"""Distributed training and its tracking, on Ray and MLflow.

Floors, lowest first; each imports only from the floors below it: ``codec``, ``errors``, ``formats``, ``git``,
``job_progress``, ``settings``, ``signals``; ``locations``; ``config``; ``presets``, ``resources`` (Ray itself),
``runs`` (a run on disk); ``data``, ``tracking`` (MLflow); ``checks``, ``coordination``, ``evaluation``; ``registry``,
``reports`` (pages), ``submission``, ``worker`` (a rank); ``promotion``, ``provenance``, ``training`` (the driver);
``search``; ``api`` (typed functions for Python and notebooks). ``launch`` imports nothing but ``settings``.
"""
