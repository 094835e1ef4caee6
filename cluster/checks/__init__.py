"""Checks before a job starts.

Reading order: ``result`` (the outcome of one check), ``job`` (all checks), ``data``, ``nodes`` with ``probe`` (the
report of each node), ``rehearsal`` (two real training steps). Nothing here starts the job.
"""
