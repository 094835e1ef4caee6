"""The jobs of the command line: one thin module each, which parses, calls one function and reports the result.

Reading order: ``cli`` (finds the job, turns errors into exit codes), ``train`` as an example, ``console``. Logic that
a user of the library needs too belongs in ``cluster``, not here.
"""
