"""One thin module a job: parse, call one function, report.

Reading order: ``cli`` (finds the job, turns errors into exit codes), ``train`` as an example, ``console``. Nothing
here decides anything that a library user would miss.
"""
