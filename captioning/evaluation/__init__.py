"""Captions of images, and their scores.

Reading order: ``captioner`` (images to captions), ``metrics`` (BLEU, ROUGE-L, CIDEr-D), ``bootstrap`` (confidence
intervals), ``behaviour`` (empty and repetitive captions, robustness to small changes of an image). Nothing here
imports shards or the registry.
"""
