"""MLflow's model registry: versions, their scores, and the champion.

Reading order: ``models`` (MODEL to checkpoint), ``registration`` with ``serving`` (the code a version carries),
``versions``, ``history`` (who was champion), ``champion`` (the alias). Nothing here knows Ray or decides who is
better.
"""
