"""Which attempt and which checkpoint count: one actor a run.

Reading order: ``messages``, ``coordinator`` (the actor), ``attempt``, ``restart_policy``, ``watchdog``; then
``interface``, a rank's view of it, with ``client`` (of the actor) and ``local`` (in the rank's own process). Nothing
here trains.
"""
