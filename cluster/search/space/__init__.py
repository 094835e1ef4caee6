"""Which points a search tries, and which of its trials it promotes.

Reading order: ``config``, ``distributions``, ``space``, ``sampling``, ``asha`` (successive halving). All of it is a
function of a search's settings and of what its trials have reported: nothing here knows Ray or processes.
"""
