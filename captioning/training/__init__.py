"""Training in one process of a group: the loop, its parts, and checkpoints.

Reading order: ``loop`` (the sequence of steps), ``gradients`` (one step's gradient), ``losses``, ``ddp``,
``optimizer``, ``collectives`` (communication between ranks), ``validation``, ``bad_samples``; then ``checkpoint`` and
``checkpoint_description``. Nothing here depends on how processes are started or where checkpoints are stored.
"""
