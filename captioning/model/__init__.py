"""The network: any torchvision classifier as encoder, an LSTM as decoder.

Reading order: ``caption_model`` (both together), ``encoder`` over ``backbone`` and ``weights``, ``decoder``, and
``calibration``, which scales what a new decoder reads. Nothing here knows how it is trained.
"""
