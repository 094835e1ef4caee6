"""Jobs sent to a cluster.

Reading order: ``submit`` with ``archive`` (the code that travels), ``precheck`` over ``dashboard`` (what is known
before it is sent), ``address``, ``job_server`` (Ray's jobs API), ``job`` (a job's state). Nothing here runs a job.
"""
