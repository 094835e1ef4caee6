import pytest

ENCODER = ("--model.backbone", "squeezenet1_1", "--model.weights", "none", "--model.image-size-px", "64")


def test_training_refuses_what_was_not_extracted(captioning, drawn_shards, tmp_path):
    code, _, told = captioning("train", "--shards", drawn_shards, "--features", tmp_path, "--dry-run")
    assert (code, told) == (
        2,
        f"error: {tmp_path / 'features.json'} does not exist: {tmp_path} is not a finished feature set; "
        "run captioning extract\n",
    )


@pytest.mark.cluster
def test_training_knows_its_features(session, captioning, drawn_shards, tmp_path):
    captioning("extract", drawn_shards, tmp_path / "features", "--num-workers", "0", *ENCODER)
    code, _, told = captioning(
        "train", "--shards", drawn_shards, "--features", tmp_path / "features", "--dry-run", *ENCODER
    )
    assert (code, "would train" in told) == (0, True)
