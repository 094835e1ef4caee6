"""The network: any torchvision classifier as encoder, an LSTM as decoder.

Reading order: ``caption_model`` (both together), ``encoder``, made of ``backbone`` and ``weights``, ``decoder``, and
``calibration``, which initializes a new model by some training images. Nothing here knows how a model is trained.
"""
