"""Caption generation: ``beam_search``, whose beam of size 1 is greedy search, ``sampling``, and their ``constraints``.

Nothing here depends on checkpoints or metrics: the inputs are a decoder and image features.
"""
