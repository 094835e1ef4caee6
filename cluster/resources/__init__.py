"""Ray itself: sessions, nodes, capacity, placement, and what dead jobs leave behind.

Reading order: ``environment`` (settings of Ray's libraries), ``session``, ``gcs`` (tables of the cluster),
``capacity``, ``leftovers``. Nothing here knows a training run.
"""
