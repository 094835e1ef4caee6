"""Datasets as people have them, read into captioned images: ``coco`` over ``annotations``.

Nothing here opens an image or knows how shards are written.
"""
