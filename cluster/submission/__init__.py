"""Submission of jobs to a Ray cluster.

Reading order: ``submit`` with ``archive`` (the uploaded code), ``precheck`` with ``dashboard`` (checks before
submission), ``address``, ``job_server`` (Ray's jobs API), ``job`` (a job's state). Nothing here runs a job.
"""
