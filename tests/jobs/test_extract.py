"""``captioning extract`` from the command line."""

import json

import pytest

from cluster.config import TrackingConfig
from cluster.data.conversion import convert, plan_conversion
from cluster.data.conversion_config import ConversionConfig
from cluster.data.shard_set import ShardSet
from cluster.tracking.client import connect
from tests.support.feature_sets import damage
from tests.support.pictures import write_coco
from tests.support.ports import free_port

FLAGS = ("--model.backbone", "squeezenet1_1", "--model.weights", "none", "--model.image-size-px", "64")


@pytest.fixture
def extracting(captioning, tmp_path):
    """Return a function that extracts into the folder ``features`` without Ray, with ``--json``."""

    def run(shards, *arguments):
        return captioning("extract", shards, tmp_path / "features", "--num-workers", "0", "--json", *arguments, *FLAGS)

    return run


def test_extracting_gives_one_json_document(extracting, drawn_shards, tmp_path):
    code, printed, told = extracting(drawn_shards, "--regions", "grid", "--views", "2")
    result = json.loads(printed)
    assert (code, result["splits"], result["num_views"], result["num_regions"], result["num_channels"]) == (
        0, {"train": 120, "val": 30}, 2, 9, 512,
    )  # fmt: skip
    assert (
        f"{tmp_path / 'features'}: images 120 train, 30 val; 0 of them without features; digest {result['digest'][:12]}"
        in told
    )


def test_a_dry_extraction_computes_nothing(extracting, drawn_shards, tmp_path):
    code, printed, told = extracting(drawn_shards, "--dry-run", "--splits", "val")
    assert (code, json.loads(printed)["splits"], list(tmp_path.iterdir())) == (0, {}, [])
    assert "to compute: 30 images in 1 of 1 shards, about 0 MiB" in told
    assert "would write" in told


def test_an_image_that_does_not_decode_is_bad_input_unless_it_is_skipped(extracting, tmp_path):
    write_coco(tmp_path / "coco", num_images=3)
    convert(
        plan_conversion(
            tmp_path / "coco", tmp_path / "shards", ConversionConfig(samples_per_shard=9, minimum_word_count=1)
        ),
        num_workers=0,
    )
    key = ShardSet(tmp_path / "shards").reader("train").read(1).key
    damage(tmp_path / "shards" / "train-000000.tar", key)
    code, _, complaint = extracting(tmp_path / "shards")
    assert (code, f"error: sample {key} of " in complaint, complaint.count("\n") <= 3) == (2, True, True)
    code, printed, told = extracting(tmp_path / "shards", "--on-bad", "skip")
    assert (code, json.loads(printed)["splits"], f"no features for {key}: " in told) == (0, {"train": 3}, True)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--num-workers", "-1"), "error: num_workers -1 is negative"),
        (("--batch-size", "0"), "error: batch_size 0 is too small; use 1 or more"),
        (("--views", "0"), "error: views 0 is too few"),
    ],
)
def test_settings_out_of_bounds_are_bad_input(captioning, tmp_path, flags, complaint):
    code, _, told = captioning("extract", tmp_path, tmp_path / "out", *flags, *FLAGS)
    assert (code, complaint in told) == (2, True)


def test_an_extraction_is_a_run_of_the_tracker_that_there_is(extracting, drawn_shards, empty_home, tmp_path):
    flags = ("--home", empty_home.home, "--tracking.experiment", "features")
    (odd := tmp_path / "{v1} *a*").symlink_to(drawn_shards)
    code, printed, _ = extracting(odd, "--splits", "val", *flags)
    assert code == 0
    client = connect(TrackingConfig(), empty_home)
    experiment = client.get_experiment_by_name("features").experiment_id
    [run] = client.search_runs([experiment])
    assert run.data.tags["features_digest"] == json.loads(printed)["digest"]
    assert (run.info.status, run.data.metrics["images/val"]) == ("FINISHED", 30)
    # The other split goes into the same set, and so into the same run.
    assert extracting(odd, *flags)[0] == 0
    [run] = client.search_runs([experiment])
    assert (run.data.metrics["images/train"], len(run.inputs.dataset_inputs)) == (120, 2)


def test_a_tracker_that_does_not_answer_is_told_before_anything_is_computed(extracting, drawn_shards, tmp_path):
    for address, code in (("folder", 2), (f"http://127.0.0.1:{free_port()}", 1)):
        answer, _, told = extracting(drawn_shards, "--tracking.uri", address)
        assert (answer, "error: " in told, address in told) == (code, True, True), told
    assert not (tmp_path / "features").exists()


def test_an_extraction_that_was_begun_is_finished_without_a_tracker(extracting, drawn_shards):
    assert extracting(drawn_shards, "--splits", "val")[0] == 0
    code, printed, told = extracting(drawn_shards, "--tracking.uri", f"http://127.0.0.1:{free_port()}")
    assert (code, json.loads(printed)["splits"]) == (0, {"train": 120, "val": 30})
    assert "this extraction goes on without the tracker: " in told
