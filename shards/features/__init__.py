"""Feature sets: what a frozen encoder computed of a shard set, in shards of the same samples.

Reading order: ``manifest``, ``writer``, ``reader``. Nothing here computes a feature.
"""
