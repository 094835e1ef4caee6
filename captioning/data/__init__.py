"""Inputs of the model: captions to token ids, image bytes to pixels, both to a batch.

Reading order: ``tokenizer``, ``vocabulary``, ``pixels``, ``views``, ``batches``. Nothing here knows the model: a
batch is made of bytes and strings alone.
"""
