"""MLflow's model registry: versions, their scores, and the champion.

Reading order: ``models`` (MODEL to checkpoint) with ``safe_loading`` (checks a version's files), ``registration`` with
``serving`` (the code stored in a version), ``versions``, ``scores``, ``history`` (changes of champion), ``champion``
(the alias). Nothing here knows Ray or compares models.
"""
