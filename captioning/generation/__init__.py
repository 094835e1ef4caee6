"""Captions from a model: ``beam_search``, of which greedy search is the case of one beam.

Nothing here knows checkpoints or scores: it takes a decoder and the features of images.
"""
