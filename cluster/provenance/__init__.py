"""Provenance of models: ``lineage`` traces a version back to its data.

Nothing here writes to the tracker or the registry, except that a champion's alias is moved to match its history.
"""
