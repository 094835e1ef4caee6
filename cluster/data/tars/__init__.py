"""Tars of other programs, used in place: ``plan`` finds them and their splits, ``indexing`` makes a shard set of them.

``shards.tars`` reads a tar; here are the words of all tars, and the actors.
"""
