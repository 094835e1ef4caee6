"""Images of a request to a served model: ``image_input`` checks and decodes, ``safe_fetch`` downloads a URL.

Both treat the request as hostile. Nothing here knows the model; it must work without torch.
"""
