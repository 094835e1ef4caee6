"""``python -m jobs JOB ...``, which is ``captioning JOB ...`` where the console script is not installed."""

from jobs.cli import main

main()
