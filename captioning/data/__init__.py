"""The inputs of the model: captions become word ids, image bytes become pixels, both become a batch.

Reading order: ``tokenizer``, ``vocabulary``, ``pixels``, ``views``, ``batches``. Nothing here knows the model: a
batch is made of bytes and strings alone.
"""
