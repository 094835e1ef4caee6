"""MLflow as a tracker.

Reading order: ``client`` connects, ``shipping`` sends a journal, ``replay`` backfills, ``access`` explains refusals.
Nothing here knows Ray or the registry.
"""
