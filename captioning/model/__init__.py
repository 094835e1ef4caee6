"""The network: any torchvision classifier as encoder, an LSTM as decoder.

Reading order: ``caption_model`` (both together), ``encoder``, made of ``backbone`` and ``weights``, ``decoder``, and
``calibration`` (initializes a new model from some training images). Nothing here imports the training code.
"""
