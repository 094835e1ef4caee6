"""Points to try and which trials go on: ``config``, ``distributions``, ``space``, ``sampling``, ``asha``.

All of it is arithmetic on what is recorded: nothing here knows Ray, files or processes.
"""
