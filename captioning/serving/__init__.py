"""Images in requests to a served model: ``image_input`` reads them, ``safe_fetch`` downloads a URL.

Requests are never trusted. Nothing here imports the model or torch.
"""
