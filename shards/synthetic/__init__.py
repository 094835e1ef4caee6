"""Synthetic scenes with captions whose truth can be checked: ``scenes`` renders, ``grammar`` describes.

Nothing here knows shards or models.
"""
