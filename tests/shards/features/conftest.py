from tests.support.feature_shards import stored

__all__ = ["stored"]
