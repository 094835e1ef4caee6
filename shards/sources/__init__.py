"""Dataset formats, read into captioned images: a module a format, and what they share.

``rows`` finds the usable images, ``annotations`` checks the form of entries. Nothing here opens an image or knows how
shards are written.
"""
