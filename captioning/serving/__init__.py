"""The images of a request to a served model: ``image_input`` reads them, ``safe_fetch`` downloads a URL.

Both expect hostile requests. Nothing here knows the model, and nothing imports torch.
"""
