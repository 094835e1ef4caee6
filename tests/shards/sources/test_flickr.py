"""Flickr8k's and Flickr30k's own files."""

import pytest

from shards.sources.flickr import find_token_file, read_flickr
from tests.support.pictures import encoded, noise


@pytest.fixture
def source(tmp_path):
    """A folder as Flickr8k's two archives unpack into it."""
    (tmp_path / "Flicker8k_Dataset").mkdir()
    lines = []
    for number in range(4):
        (tmp_path / "Flicker8k_Dataset" / f"{number}_a.jpg").write_bytes(encoded(noise(24, 16, seed=number)))
        lines += [f"{number}_a.jpg#{caption}\tCaption {caption} of {number} ." for caption in range(2)]
    (tmp_path / "Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "Flickr8k.lemma.token.txt").write_text("0_a.jpg#0\tcaption\n")
    for split, names in (("train", "0_a.jpg\n2_a.jpg\n"), ("dev", "1_a.jpg\n"), ("test", "3_a.jpg\n")):
        (tmp_path / f"Flickr_8k.{split}Images.txt").write_text(names)
    return tmp_path


def read(source, *splits, **options):
    return read_flickr(source, find_token_file(source), splits, **options)


def test_the_lists_make_the_splits(source):
    annotations = read(source)
    found = {split: [one.image_id for one in images] for split, images in annotations.splits.items()}
    assert found == {"train": ["0_a.jpg", "2_a.jpg"], "val": ["1_a.jpg"], "test": ["3_a.jpg"]}
    assert annotations.splits["val"][0].captions == ("Caption 0 of 1 .", "Caption 1 of 1 .")
    assert set(annotations.files) == {
        "Flickr8k.token.txt",
        *(f"Flickr_8k.{split}Images.txt" for split in ("train", "dev", "test")),
    }
    assert list(read(source, "test").splits) == ["test"]


def test_without_lists_there_are_no_splits(source):
    for path in source.glob("Flickr_8k.*"):
        path.unlink()
    annotations = read(source)
    assert (len(annotations.splits["train"]), annotations.has_splits) == (4, False)


def test_flickr30ks_file_is_found_in_a_folder_of_its_own(source):
    (source / "text").mkdir()
    (source / "Flickr8k.token.txt").rename(source / "text" / "results_20130124.token")
    assert find_token_file(source) == source / "text" / "results_20130124.token"
    assert len(read(source).splits["train"]) == 2


def test_a_line_of_another_form_is_told(source):
    with (source / "Flickr8k.token.txt").open("a") as file:
        file.write("4_a.jpg a dog\n")
    with pytest.raises(ValueError, match="line 9 is not an image's name, # and a number, a tab, and a caption"):
        read(source)
    assert len(read(source, skip_bad=True).set_aside) == 1


def test_an_image_of_a_list_without_captions_is_told(source):
    (source / "Flickr_8k.devImages.txt").write_text("1_a.jpg\n3_b.jpg\n")
    with pytest.raises(ValueError, match=r"image 3_b\.jpg .* is in none of"):
        read(source)
