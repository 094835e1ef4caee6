"""Images of shards: ``codec`` says what a codec of JPEG does, ``limits`` which files are not opened.

``shards.images`` puts them together. Nothing here knows torch.
"""
