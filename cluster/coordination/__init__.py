"""Coordination of a run: one actor per run decides which attempt is current and which checkpoints are committed.

Reading order: ``messages``, ``coordinator`` (the actor), ``run_state`` (what it keeps), ``event_log``, ``attempt``,
``restart_policy``, ``hang_detection``; then ``interface`` (a rank's view of the coordinator) with ``client`` (calls the
actor) and ``local`` (runs in the rank's own process). Nothing here trains.
"""
