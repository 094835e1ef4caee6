"""MLflow tracking.

Reading order: ``client`` connects, after ``server`` has checked what answers or ``database`` has made the embedded
tracker; ``metric_logging`` sends a journal during training, ``replay`` backfills it afterwards, ``access`` explains
refused requests. Nothing here knows Ray or the registry.
"""
