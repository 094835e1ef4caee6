"""What is said of a source before it is converted."""

import json

import pytest

from cluster.data.conversion import plan_conversion
from cluster.data.conversion_config import ConversionConfig
from cluster.data.source_summary import counts_text, duplicate_lines, summary_lines
from tests.support.pictures import encoded, noise


@pytest.fixture
def source(tmp_path):
    """A table of three images, two of which are equal."""
    lines = ["image,caption,split"]
    for number, (split, seed) in enumerate((("train", 1), ("train", 2), ("val", 1))):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(noise(24 + seed, 16, seed=seed)))
        lines += [f"{number}.jpg,A dog runs.,{split}"] * (number + 1)
    (tmp_path / "captions.csv").write_text("\n".join(lines))
    return tmp_path


def plan(source, **options):
    return plan_conversion(source, source / "shards", ConversionConfig(minimum_word_count=1, **options))


def test_equal_images_of_different_splits_are_refused(source):
    with pytest.raises(ValueError, match=r"equal images .*: 0\.jpg \(train\) = 2\.jpg \(val\); .* --on-leak keep"):
        plan(source)


def test_those_of_published_splits_are_kept_and_named(source):
    lines = {
        split: json.dumps(
            {
                "images": [{"id": number, "file_name": f"{number}.jpg"} for number in numbers],
                "annotations": [{"image_id": number, "caption": "A dog."} for number in numbers],
            }
        )
        for split, numbers in (("train", (0, 1)), ("val", (2,)))
    }
    (source / "captions.csv").unlink()
    (source / "annotations").mkdir()
    for split, content in lines.items():
        (source / "annotations" / f"captions_{split}.json").write_text(content)
    for number in range(3):
        (source / "images").mkdir(exist_ok=True)
        (source / f"{number}.jpg").rename(source / "images" / f"{number}.jpg")
    assert "of different splits" in duplicate_lines(plan(source))[0]
    with pytest.raises(ValueError, match="equal images"):
        plan(source, on_leak="stop")


def test_captions_files_and_sizes_are_told(source):
    found = plan(source, on_leak="keep")
    captions, files, sizes, equal = summary_lines(found)
    assert counts_text(found.annotations.splits) == "2 train, 1 val"
    assert captions == "captions an image: 1 to 3, 2.0 on average; 18 words, 3 different"
    assert files.startswith("files: ")
    assert files.endswith(" kB")
    assert sizes == "shorter sides: 16 px"
    assert (
        equal == "1 set of equal images of different splits, which makes scores too good: 0.jpg (train) = 2.jpg (val)"
    )


def test_equal_images_of_one_split_are_told(source):
    (source / "1.jpg").write_bytes((source / "0.jpg").read_bytes())
    (source / "2.jpg").unlink()
    (source / "2.jpg").write_bytes(encoded(noise(30, 30, seed=5)))
    assert duplicate_lines(plan(source)) == ["1 set of equal images of one split: 0.jpg (train) = 1.jpg (train)"]


def test_an_image_that_does_not_open_is_counted(source):
    (source / "2.jpg").write_bytes(b"no image")
    assert summary_lines(plan(source))[2] == "shorter sides: 16 px; 1 cannot be opened"
