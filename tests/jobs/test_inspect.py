"""``captioning inspect`` from the command line."""

import io
import json

from PIL import Image

from tests.support.raw_tars import tar_samples, write_tar


def test_a_set_is_shown_with_its_splits(captioning, drawn_shards):
    code, _, told = captioning("inspect", drawn_shards)
    cells = [[cell.strip() for cell in line.strip("│| ").split("│")] for line in told.splitlines()]
    assert (code, [cell for cell in cells if cell[0] in ("tokenizer", "images", "captions an image")]) == (
        0,
        [
            ["images", "shorter side up to 256 px, JPEG quality 90"],
            ["tokenizer", "ptb"],
            *[["images", "120"], ["captions an image", "5"], ["images", "30"], ["captions an image", "5"]],
        ],
    )


def test_one_json_document_has_all_of_it(captioning, drawn_shards, tmp_path):
    page = tmp_path / "val.html"
    code, printed, _ = captioning("inspect", drawn_shards, "--split", "val", "--json", "--html", page)
    found = json.loads(printed)
    assert (code, list(found["splits"]), len(found["digest"])) == (0, ["val"], 64)
    summary = found["splits"]["val"]
    assert (summary["num_samples"], summary["captions_per_image"], summary["shorter_side_px"]) == (
        30,
        [5, 5, 5],
        [64, 64.0, 64],
    )
    assert page.read_text().count("<img ") == 30


def test_a_missing_split_is_named(captioning, drawn_shards):
    code, _, told = captioning("inspect", drawn_shards, "--split", "dev")
    assert (code, "has no split dev; it has train, val" in told) == (2, True), told


def test_pictures_of_other_formats_are_shown_and_broken_ones_left_out(captioning, tmp_path):
    gif = io.BytesIO()
    Image.new("RGB", (40, 20)).save(gif, "GIF")
    others = [("b.gif", gif.getvalue()), ("b.txt", b"A cat."), ("c.jpg", b"no picture"), ("c.txt", b"A cow.")]
    write_tar(tmp_path / "0.tar", [*tar_samples(["a"]), *others])
    captioning("index", tmp_path, tmp_path / "set", "--minimum-word-count", 1)
    page = tmp_path / "page.html"
    code, _, told = captioning("inspect", tmp_path / "set", "--html", page)
    assert (code, page.read_text().count("<img ")) == (0, 2), told
    assert "train c of 0.tar is left out of the page: the picture does not decode" in told
