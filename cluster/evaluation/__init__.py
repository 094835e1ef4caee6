"""Scores of a checkpoint on a split: ``evaluate`` computes, ``cache`` remembers.

Nothing here knows Ray or the registry.
"""
