"""Evaluation of a checkpoint on a split: ``evaluate`` computes captions and scores, ``cache`` stores them.

Nothing here knows Ray or the registry.
"""
