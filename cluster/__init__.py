"""What is distributed and tracked: Ray and MLflow.

Floors, lowest first, each importing only from those below: ``config`` and its helpers; ``resources`` (Ray itself) and
``runs`` (a run on disk); ``data`` and ``tracking`` (MLflow); ``checks``, ``coordination``, ``evaluation``;
``registry``, ``submission``, ``worker`` (a rank); ``promotion``, ``provenance``, ``training`` (the driver);
``search``. ``launch`` stands alone.
"""
