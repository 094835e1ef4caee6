"""Tensors: the model and its mathematics, in plain PyTorch."""
