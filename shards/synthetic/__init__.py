"""Synthetic scenes with captions that can be checked: ``scenes`` draws images, ``grammar`` writes and parses captions.

Nothing here knows shards or models.
"""
