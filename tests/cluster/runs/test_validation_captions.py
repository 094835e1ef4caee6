import logging

from cluster.runs.validation_captions import NUM_IMAGES, ValidationCaptions, load_captions, save_captions


def test_the_captions_of_the_first_images_are_kept_by_step(tmp_path):
    many = {number: f"caption {number}" for number in range(NUM_IMAGES + 4)}
    save_captions(tmp_path, ValidationCaptions(20, many, {"validation_cider_d": (0.5, 1.0)}))
    save_captions(tmp_path, ValidationCaptions(8, {0: "first"}, {}))
    first, second = load_captions(tmp_path)
    assert first == ValidationCaptions(8, {0: "first"}, {})
    assert (second.step, len(second.captions), second.intervals) == (20, NUM_IMAGES, {"validation_cider_d": (0.5, 1.0)})


def test_a_validation_that_is_repeated_keeps_its_file(tmp_path):
    save_captions(tmp_path, ValidationCaptions(8, {0: "first"}, {}))
    save_captions(tmp_path, ValidationCaptions(8, {0: "second"}, {}))
    assert [one.captions for one in load_captions(tmp_path)] == [{0: "first"}]


def test_a_file_that_cannot_be_written_or_read_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        save_captions(tmp_path / "file", ValidationCaptions(8, {0: "first"}, {}))
    assert "step-00000008.json cannot be written" in caplog.messages[0]
    save_captions(tmp_path, ValidationCaptions(8, {0: "first"}, {}))
    folder = tmp_path / "validation-captions"
    (folder / "step-00000009.json").write_text("{")
    (folder / ".step-00000010.json.tmp").write_text("{")
    assert [one.step for one in load_captions(tmp_path)] == [8]
    assert "step-00000009.json is damaged" in caplog.messages[1]
    assert load_captions(tmp_path / "none") == []
