"""HTML pages and plots for people: captions of images, and a search's trials.

Reading order: ``html`` (templates, one self-contained file), ``gallery``, then ``trial_summary``, ``search_page``,
``search_charts`` and ``parallel_coordinates``. Nothing here imports torch or computes a score.
"""
