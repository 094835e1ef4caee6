import torch

from captioning.training.transfer import BatchStream, load_part
from tests.support import tiny_models
from tests.support.tiny_models import CPU


def test_a_part_comes_with_the_packing_of_its_captions():
    part = tiny_models.batch(range(3))
    host, batch, packing = load_part(part, CPU)
    assert host is part
    assert torch.equal(batch.tokens, part.tokens)
    assert sum(packing.batch_sizes) == part.num_targets + len(part.tokens)  # each caption's words, and its image


def test_batches_come_in_order_and_then_none():
    batches = list(tiny_models.batches(range(3), num_parts=2))
    stream = BatchStream(batches, CPU)
    keys = [[part.host.keys for part in stream.next()] for _ in batches]
    assert keys == [[part.keys for part in parts] for parts in batches]
    assert (stream.next(), stream.next()) == (None, None)


def test_without_a_gpu_no_batch_is_read_ahead():
    read = []
    stream = BatchStream((read.append(step) or [tiny_models.batch()] for step in range(3)), CPU)
    stream.next()
    stream.prefetch()
    assert read == [0]


def test_the_time_of_reading_is_waiting():
    ticks = iter([10.0, 12.5])
    stream = BatchStream([[tiny_models.batch()]], CPU, lambda: next(ticks))
    stream.next()
    assert stream.wait_seconds == 2.5
