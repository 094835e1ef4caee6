import pytest

from captioning.data.vocabulary import EOS, UNK
from captioning.evaluation.health import IMAGE_GAIN, UNKNOWN_SHARE
from captioning.evaluation.health_probe import probe_health
from captioning.training.losses import cross_entropy_sum
from tests.support import tiny_models
from tests.support.tiny_models import CPU, TRAINING


def probed(batches, **changes):
    return probe_health(tiny_models.model(**changes), batches, config=TRAINING, device=CPU)


def test_the_gain_is_the_loss_with_exchanged_images_less_the_loss_with_their_own():
    batch, model = tiny_models.batch(), tiny_models.model()
    pair = (batch, batch._replace(images=batch.images.roll(1, 0)))
    sums = [float(cross_entropy_sum(model(one), one.targets()).detach()) for one in pair]
    expected = (sums[1] - sums[0]) / batch.num_targets
    assert probe_health(model, [batch], config=TRAINING, device=CPU)[IMAGE_GAIN] == pytest.approx(expected, abs=1e-6)
    assert expected != 0.0


def test_images_that_are_all_the_same_gain_nothing():
    batch = tiny_models.batch()
    same = batch._replace(images=batch.images[:1].expand_as(batch.images))
    assert probed([same])[IMAGE_GAIN] == 0.0


def test_unknown_words_are_counted_among_the_words_of_captions():
    batch = tiny_models.batch()
    fewer = batch._replace(tokens=batch.tokens.where(batch.tokens != UNK + 1, UNK))
    targets = fewer.targets()
    expected = int((targets == UNK).sum()) / int((targets != EOS).sum())
    assert 0.0 < probed([fewer])[UNKNOWN_SHARE] == expected < 0.5


def test_what_cannot_be_measured_is_missing():
    assert probed([]) == {}
