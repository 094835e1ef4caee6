"""A run on disk: its record, journal, checkpoints and samples.

Reading order: ``record`` (``run.json``), ``identity`` (settings that a run cannot change), ``writer`` (the only writer
of ``run.json``), ``journal``, ``checkpoint_store``, ``pruning``, ``sample_ledger``, ``bad_batches``. Nothing here knows
Ray or MLflow.
"""
