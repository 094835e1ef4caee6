"""A run on disk: its record, journal, checkpoints and samples.

Reading order: ``record`` (``run.json``), ``writer`` (its only writer), ``journal``, ``checkpoint_store``,
``pruning``, ``sample_ledger``, ``bad_batches``. Nothing here knows Ray or MLflow.
"""
