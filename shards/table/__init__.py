"""The records of a set's shards: few in its manifest, many as a table in a file of their own.

Read ``shard_table`` (a record, and a table of many), then ``table_file`` (the file beside the manifest).
"""
