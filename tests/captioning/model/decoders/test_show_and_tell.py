import torch

from tests.support.tiny_decoders import forced, random_features, random_tokens, tiny_decoder


@torch.no_grad()
def test_a_mean_of_regions_does_not_see_where_they_are():
    decoder, features, tokens = tiny_decoder(pooling="mean"), random_features(), random_tokens()
    torch.testing.assert_close(forced(decoder, features.flip(1), tokens), forced(decoder, features, tokens))


@torch.no_grad()
def test_without_pooling_it_sees_where_regions_are():
    decoder, features, tokens = tiny_decoder(pooling="none"), random_features(), random_tokens()
    moved, original = (forced(decoder, one, tokens) for one in (features.flip(1), features))
    assert (moved != original)[:, 0].any(-1).all()
