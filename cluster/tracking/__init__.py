"""MLflow tracking.

Reading order: ``client`` connects, ``shipping`` sends a journal during training, ``replay`` backfills it afterwards,
``access`` explains refused requests, ``reachability`` asks whether a server answers. Nothing here knows Ray or the
registry.
"""
