import json

import pytest

from captioning.data.batches import BadSample
from cluster.runs.bad_batches import bad_batch_path, write_bad_batch


@pytest.mark.parametrize(("step", "name"), [(3, "step-00000003.json"), (0, "validation.json")])
def test_a_batch_has_a_file_of_its_own(tmp_path, step, name):
    assert bad_batch_path(tmp_path, step) == tmp_path / "bad-samples" / name


def test_a_bad_batch_is_written_down_as_valid_json(tmp_path):
    path = bad_batch_path(tmp_path, 3)
    bad = BadSample("0001", "train-000000.tar", 17, "it has no caption")
    write_bad_batch(path, 3, [bad], {"0001": float("nan"), "0002": 1.5})
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
        "step": 3,
        "bad": [{"key": "0001", "shard": "train-000000.tar", "position": 17, "reason": "it has no caption"}],
        "losses_nats": {"0001": None, "0002": 1.5},
    }
