"""Evaluation of a checkpoint on a split: ``evaluate`` computes captions and scores, ``cache`` stores them.

``pictures`` captions images that are not in a shard set.
Nothing here knows Ray or the registry.
"""
