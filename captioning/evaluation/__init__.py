"""Captions of images, and their scores.

Reading order: ``captioner`` (images to captions), ``metrics`` (BLEU, ROUGE-L, CIDEr-D), ``meteor`` (METEOR),
``bootstrap`` (confidence intervals), ``behaviour`` (empty, repetitive and novel captions, robustness to small changes
of an image). Nothing here imports shards or the registry.
"""
