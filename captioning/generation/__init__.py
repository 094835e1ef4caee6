"""Caption generation: ``beam_search``; a beam of size 1 is greedy search.

Nothing here depends on checkpoints or metrics: the inputs are a decoder and image features.
"""
