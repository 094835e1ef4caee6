"""``captioning inspect`` from the command line."""

import json


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
