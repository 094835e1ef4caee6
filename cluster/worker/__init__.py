"""Training in a worker: everything that runs in a Ray Train worker process.

Reading order: ``worker`` (entry point), ``start`` (joins an attempt and builds a rank), ``resume`` (the checkpoint to
start from), ``rank`` (the training loop of a rank), ``checkpointing``, ``validation``, ``async_validation``,
``reporting``, ``prometheus``, ``rank_log``. Nothing here knows which process started the worker, or MLflow.
"""
