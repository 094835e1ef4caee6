"""The network: any torchvision classifier as encoder, and one of several decoders.

Reading order: ``caption_model`` (both together), ``encoder``, made of ``backbone`` and ``weights``, ``decoders``, and
``calibration`` (initializes a new model from some training images). Nothing here imports the training code.
"""
