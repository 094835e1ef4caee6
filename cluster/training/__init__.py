"""The driver's side of training.

Reading order: ``trainer`` (``fit``), ``start`` (what is on record before workers start), ``driver``, ``callbacks``
(Ray Train's), ``progress``, ``failure_report``. Nothing here computes a gradient.
"""
