"""The driver's side of training.

Reading order: ``trainer`` (``fit``, the entry), ``start`` (the records written before workers start), ``driver``,
``callbacks`` (of Ray Train's controller), ``progress``, ``failure_report``. Nothing here computes a gradient.
"""
