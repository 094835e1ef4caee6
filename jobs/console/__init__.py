"""The terminal.

``parsing`` of command lines, ``output``, ``tables``, ``paths``, and views of jobs, searches and dry runs. Nothing
here starts a job.
"""
