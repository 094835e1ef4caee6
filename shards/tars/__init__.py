"""Tars of other programs, used where they are.

``patterns`` finds them, ``stream`` reads one once, ``recognition`` sees where its captions are, and ``scan`` tells what
is in it. Nothing here writes or keeps their content. ``shards.layout`` says how their samples are read later, and
``shards.shard_files`` where they are.
"""
