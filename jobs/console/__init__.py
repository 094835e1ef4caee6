"""The terminal: what jobs read from the command line and print.

Reading order: ``job`` (what a job's module declares), ``parsing`` of command lines with ``mistakes``, ``output``,
``tables``, ``paths``, then the views of jobs, searches and dry runs. Nothing here starts a job.
"""
