"""Storage of sets: files, folders and URLs.

Reading order: ``files`` (atomic writes), ``lock`` (one writer of a folder), ``location`` (folder or URL), ``folders``
(one interface to both), ``remote`` (fsspec with retries), ``cache`` (a node's copies of remote shards),
``digest_cache`` (sha256 of unchanged files), ``document`` (a manifest and its format version). Nothing here knows what
a shard is.
"""
