"""Bytes at rest: COCO in, tar shards out, samples back."""
