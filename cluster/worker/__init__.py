"""The rank's side of training: everything that runs in a Ray Train worker.

Reading order: ``worker`` (entry point), ``resume`` (the checkpoint to start from), ``rank`` (the loop of a rank),
``checkpointing``, ``validation``, ``async_validation``, ``reporting``, ``prometheus``, ``rank_log``. Nothing here
knows who started it, or MLflow.
"""
