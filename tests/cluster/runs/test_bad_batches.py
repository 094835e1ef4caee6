import json

import pytest

from captioning.data.batches import BadSample
from captioning.training.bad_samples import BadSampleError
from cluster.runs.bad_batches import bad_batch_path, save_bad_batch, write_bad_batch


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


@pytest.mark.parametrize("writes", [True, False])
def test_the_hint_to_an_error_names_the_file_that_one_process_writes(tmp_path, writes):
    bad = BadSample("0001", "train-000000.tar", 17, "it has no caption")
    hint = save_bad_batch(tmp_path, BadSampleError(3, [bad], {}), writes=writes)
    path = tmp_path / "bad-samples" / "step-00000003.json"
    assert (hint, path.is_file()) == (f"; the whole batch is described in {path}", writes)
