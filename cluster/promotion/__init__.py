"""Promotion of a challenger to champion, through a gate.

Reading order: ``gate_config``, ``gate`` (both models caption the same images), ``gate_checks`` (the criteria),
``promotion`` (promote and roll back). Nothing here knows Ray.
"""
