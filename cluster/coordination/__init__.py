"""Which attempt and which checkpoint count: one actor a run.

Reading order: ``messages``, ``coordinator`` (the actor), ``attempt``, ``restart_policy``, ``watchdog``; ``client`` is
a rank's side of it, ``local`` the same for a single process. Nothing here trains.
"""
