"""Captions from a model: ``beam_search``; with one beam, it is greedy search.

Nothing here knows checkpoints or scores: it takes a decoder and the features of images.
"""
