"""MLflow's model registry: versions, their scores, and the champion.

Reading order: ``models`` (MODEL to checkpoint) over ``safe_loading`` (the files of a version), ``registration`` with
``serving`` (the code a version carries), ``versions``, ``scores``, ``history`` (who was champion), ``champion`` (the
alias). Nothing here knows Ray or decides who is better.
"""
