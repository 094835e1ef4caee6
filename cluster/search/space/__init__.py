"""Search space, samplers and ASHA: which points a search tries, and which trials it promotes.

Reading order: ``config``, ``distributions``, ``space``, ``sampling``, ``asha`` (successive halving). Everything here
depends only on the search's settings and the trials' reports; nothing knows Ray or processes.
"""
