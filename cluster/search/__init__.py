"""Hyperparameter search: many training runs, of which ASHA trains only the best to their end.

Reading order: ``space`` (points to try, trials to promote), ``plan``, ``tuner`` (the entry), ``scheduler`` (decides
what to train next), ``trials`` (the record on disk), ``trainable`` (a trial's process), ``tune_adapters`` (called by
Ray Tune); ``features``, ``estimate``, ``tracking``, ``artifacts``.

Ray Tune only places trials on the cluster, starts their processes, and restarts lost ones. Its searchers, schedulers,
loggers, checkpoints and snapshots of a search are not used, because a search must resume exactly, even on another
cluster:

- Tune writes its snapshot of a search periodically and in place: after a driver is killed, the snapshot may be minutes
  old, or half a file. Here, each trial has its own file, replaced atomically before the trial starts and after each
  validation.
- ``Tuner.restore`` restores the settings of the first start, such as the number of concurrent trials, which may not fit
  on another cluster. Here, each start is a new Tune run, sized for the cluster as it is now.
- Tune's ASHA never promotes. At each rung it compares a trial with those that reached the rung earlier, stops it or
  lets it continue, and cannot revise this later. ASHA as published, in ``space.asha``, stops every trial at its rung,
  and resumes it once it is among the best of the rung. (Measured with 24 trials of at most 9 epochs: Tune's ASHA
  trained 65 of 216 epochs and this one 58, and the best score of Tune's was 1.4 % worse.)

So the files of the trials alone determine what to train next. Nothing in this package reads files that Tune wrote.
"""
