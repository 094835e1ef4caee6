"""Files, folders and URLs that sets are kept in.

Reading order: ``files`` (a file that is whole or absent), ``location`` (folder or URL), ``folders`` (one interface to
both), ``remote`` (fsspec with retries), ``cache`` (a node's copies of remote shards), ``digest_cache`` (files that are
hashed once), ``document`` (a manifest and its format version). Nothing here knows what a shard
is.
"""
