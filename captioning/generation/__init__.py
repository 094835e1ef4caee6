"""Caption generation: ``beam_search``; a beam of size 1 is greedy search.

Nothing here imports checkpoints or scores: the inputs are a decoder and image features.
"""
