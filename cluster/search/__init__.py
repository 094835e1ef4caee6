"""Hyperparameter search: many training runs, of which ASHA trains only the better ones to their end.

Reading order: ``space`` (which points are tried, which trials are promoted), ``plan``, ``tuner`` (the entry),
``scheduler`` (decides what is trained next), ``trials`` (the record on disk), ``trainable`` (a trial's process),
``tune_adapters`` (what Ray Tune calls); ``features``, ``estimate``, ``tracking``, ``artifacts``.

Ray Tune only places trials on the cluster, starts their processes, and starts lost ones again. Its searchers, its
schedulers, its loggers, its checkpoints and its snapshots of a search are switched off, because a search must resume
exactly, also on another cluster:

- Tune's snapshot of a search is written now and then, and in place: what a killed driver leaves may be minutes old, or
  half a file. A trial here is written to a file of its own, by rename, before it starts and after each validation.
- ``Tuner.restore`` brings back the settings of the first start, such as the number of trials at once, which another
  cluster may not hold. Here each start is a new Tune run, which takes what the cluster has now.
- Tune's ASHA never promotes. It stops a trial at a rung or lets it pass, by comparison with the trials that came there
  before it, and cannot correct this later. ASHA as the paper has it, in ``space.asha``, stops every trial at its rung,
  and resumes it once it is among the best of the rung. (Measured with 24 trials of at most 9 epochs, Tune's against
  ours: 65 against 58 of 216 epochs, and a best score that was 1.4 % worse.)

So what is trained next is a function of the files of the trials alone. Nothing in this package reads what Tune wrote.
"""
