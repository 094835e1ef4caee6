"""Self-contained HTML pages: galleries of captioned images, runs, registered versions and searches.

Reading order: ``html`` (templates in one file), ``axes`` and ``charts``, ``thumbnails`` and ``gallery``,
``score_table`` and ``model_page`` (a run or a version), then ``trial_summary``, ``parallel_coordinates``,
``search_charts`` and ``search_page``; ``notebook`` has fragments. ``templates/page.js`` sorts, filters, and shows the
values under the pointer. Nothing here imports torch or computes a score.
"""
