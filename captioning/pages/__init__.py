"""HTML pages with charts: captions of images, and the trials of a search.

Reading order: ``html`` (templates and charts in one self-contained file), ``gallery``, ``notebook`` (fragments), then
``trial_summary``, ``search_page``, ``search_charts`` and
``parallel_coordinates``. Nothing here imports torch or computes a score.
"""
