"""Where a model comes from: ``lineage`` follows a version back to its data.

Nothing here changes anything.
"""
