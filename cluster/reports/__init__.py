"""Pages of runs and registered versions, for people: ``run_page`` and ``version_page``.

``training_story`` reads what both show of a training: its curves, and the captions of a few images at each validation.
Nothing here knows Ray or the registry, and a page that cannot be written is a warning.
"""
