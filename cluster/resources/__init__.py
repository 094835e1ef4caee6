"""Ray itself: sessions, nodes, capacity, placement, and leftovers of dead jobs.

Reading order: ``environment`` (settings of Ray's libraries), ``search_path`` (where workers find code), ``session``,
``gcs`` (tables of the cluster), ``capacity``, ``placement``, ``leftovers``. Nothing here knows a training run.
"""
