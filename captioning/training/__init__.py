"""Training in one process of a group: the loop, its parts, and checkpoints.

Reading order: ``loop`` (one step after the other), ``gradients`` (one step's gradient), ``losses``, ``ddp``,
``optimizer``, ``collectives`` (what ranks agree on in a step), ``validation``, ``bad_samples``; then ``checkpoint``
and ``checkpoint_description``. Nothing here knows who started the process or where checkpoints are kept.
"""
