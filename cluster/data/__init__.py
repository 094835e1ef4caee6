"""Shard sets in, batches and feature sets out.

Reading order: ``shard_set``, ``sources``, ``loading`` (the data loader), ``conversion`` (captioned images to shards)
with ``conversion_config``, ``extraction`` with ``extractor`` and ``extraction_pool``, ``actor_pool`` (of both). Nothing
here knows a training run's record.
"""
