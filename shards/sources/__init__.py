"""Dataset formats, read into captioned images: ``coco`` reads files, ``annotations`` checks their entries.

Nothing here opens an image or knows how shards are written.
"""
