"""Captions of a split and their scores.

Reading order: ``captioner`` (images to captions), ``metrics`` (BLEU, ROUGE-L, CIDEr-D), ``bootstrap`` (confidence
intervals), ``behaviour`` (how captions change when images are perturbed). Nothing here knows shards or the registry.
"""
