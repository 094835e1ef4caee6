"""Inputs of the model: captions to word ids, image bytes to pixels, both to batches.

Reading order: ``tokenizer``, ``vocabulary``, ``pixels``, ``views``, ``batches``. Nothing here imports the model: the
inputs are bytes and strings.
"""
