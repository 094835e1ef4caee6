"""Submission of jobs to a Ray cluster.

Reading order: ``submit`` with ``archive`` (the uploaded code), ``paths`` (uploaded files) and ``runtime_env``, ``plan``
with ``precheck`` and ``dashboard`` (checks before submission), ``training`` (a run by its configuration), ``address``,
``job_server`` (Ray's jobs API), ``job`` (a job's state). Nothing here runs a job.
"""
