def test_training_refuses_what_was_not_extracted(captioning, drawn_shards, tmp_path):
    code, _, told = captioning("train", "--shards", drawn_shards, "--features", tmp_path, "--dry-run")
    assert (code, told) == (
        2,
        f"error: {tmp_path / 'features.json'} does not exist: {tmp_path} is not a finished feature set; "
        "run captioning extract\n",
    )
