"""Feature sets: a frozen encoder's outputs for a shard set, in shards of the same samples.

Reading order: ``manifest``, ``writer``, ``reader``. Nothing here computes a feature.
"""
