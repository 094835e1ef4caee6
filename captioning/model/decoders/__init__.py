"""The decoders: ``show_and_tell`` (lstm), ``attend`` and ``transformer``, behind one ``interface``.

Reading order: ``interface``, then any decoder; ``factory`` builds the one that the settings name. Each has its own
settings, in ``captioning.decoder_config``, and knows neither the others nor the encoder.
"""
