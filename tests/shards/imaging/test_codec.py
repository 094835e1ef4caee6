"""The versions of a shard set's codecs."""

import re

from cluster.codec import TurboCodec
from shards.imaging.codec import codec_versions


def test_codec_versions_name_the_encoder_that_runs():
    alone, handed = codec_versions(), codec_versions(TurboCodec())
    assert (list(alone), list(handed)) == (["pillow", "libjpeg"], ["pillow", "libjpeg", "simplejpeg", "torch"])
    assert all(re.match(r"\d+\.\d+", version) for version in handed.values())
