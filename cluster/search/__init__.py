"""Hyperparameter search: many training runs, of which the better go on.

Reading order: ``space`` (what is tried), ``plan``, ``tuner``, ``scheduler``, ``trials`` (the record), ``trainable``
(a trial's process), ``tune_adapters`` (Ray Tune); ``features``, ``estimate``, ``tracking``, ``artifacts``. Ray Tune
places trials and starts their processes; which trial goes on follows from the record on disk alone, so that a search
resumes exactly on another cluster.
"""
