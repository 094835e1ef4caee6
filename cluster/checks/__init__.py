"""Checks before a job starts.

Reading order: ``result`` (one check's outcome), ``job`` (all of them), ``data``, ``nodes`` with ``probe`` (what each
node reports), ``rehearsal`` (two real training steps). Nothing here starts the job.
"""
