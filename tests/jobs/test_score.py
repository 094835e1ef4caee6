"""``captioning score`` from the command line."""

import json

import pytest

REFERENCES = {1: ["A dog runs.", "One dog is running."], 2: ["A cat sleeps."], 3: ["A red bus on a street."]}


@pytest.fixture
def references(tmp_path):
    path = tmp_path / "captions_val.json"
    annotations = [{"image_id": number, "caption": one} for number, found in REFERENCES.items() for one in found]
    path.write_text(json.dumps({"images": [], "annotations": annotations}))
    return path


def results(path, captions):
    path.write_text(json.dumps([{"image_id": number, "caption": one} for number, one in captions.items()]))
    return path


GOOD = {1: "A dog runs.", 2: "A cat sleeps.", 3: "A bus."}


def test_scores_intervals_and_differences_are_told(captioning, references, tmp_path):
    good = results(tmp_path / "good.json", GOOD)
    bad = results(tmp_path / "bad.json", dict.fromkeys(GOOD, "A dog."))
    code, printed, told = captioning("score", good, references, "--against", bad, "--json")
    found = json.loads(printed)
    assert (code, found["num_images"], found["different captions"]) == (0, 3, 3), told
    for score in ("CIDEr-D", "METEOR"):
        assert found["scores"][score] > found["differences"][score]["difference"] > 0
    assert "what the captions are like" in told


def test_captions_that_are_no_training_captions_are_novel(captioning, references, tmp_path):
    good = results(tmp_path / "good.json", GOOD)
    training = tmp_path / "training.csv"
    training.write_text("image_id,caption\n7,a dog runs\n8,A bird.\n")
    printed, told = captioning("score", good, references, "--training", training, "--json")[1:]
    assert (json.loads(printed)["share of novel captions"], "0.667" in told) == (pytest.approx(2 / 3), True)


def test_captions_in_another_language_have_no_meteor(captioning, tmp_path):
    german = results(tmp_path / "german.json", {1: "Ein Hund läuft.", 2: "Eine Katze schläft."})
    printed, told = captioning("score", german, german, "--json")[1:]
    assert ("METEOR" in json.loads(printed)["scores"], "METEOR is left out of the scores" in told) == (False, True)


def test_a_table_scores_as_json_does(captioning, references, tmp_path):
    table = tmp_path / "results.csv"
    table.write_text("image_id,caption\n" + "".join(f"{number},{one}\n" for number, one in GOOD.items()))
    both = [
        json.loads(captioning("score", path, references, "--json")[1])["scores"]
        for path in (table, results(tmp_path / "good.json", GOOD))
    ]
    assert both[0] == both[1]


def test_references_may_be_a_shard_set(captioning, drawn_shards, tmp_path):
    exported = tmp_path / "coco"
    captioning("export", drawn_shards, exported, "--splits", "val")
    content = json.loads((exported / "annotations" / "captions_val.json").read_text())
    first = {one["image_id"]: one["caption"] for one in reversed(content["annotations"])}
    code, printed, told = captioning("score", results(tmp_path / "r.json", first), drawn_shards, "--json")
    assert (code, json.loads(printed)["scores"]["BLEU-1"]) == (0, pytest.approx(1.0)), told


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("r.json", "[]", "has no captions"),
        ("r.json", "{", "is not JSON"),
        ("r.json", '{"a": 1}', "has no list of captions"),
        ("r.json", '[{"image_id": 1}]', "entry 0, has no image_id and caption"),
        ("r.json", '[{"image_id": 1.5, "caption": "a"}]', "entry 0, has image_id 1.5; write a whole number or a text"),
        ("r.json", '[{"image_id": true, "caption": "a"}]', "entry 0, has image_id true; write a whole number"),
        ("r.json", '[{"image_id": 1, "caption": 5}]', "entry 0, has caption 5; write a text, or a list of texts"),
        ("r.json", '[{"image_id": 1, "caption": ["a", {}]}]', 'entry 0, has caption ["a", {}]; write a text'),
        ("r.json", '[{"image_id": 1, "caption": "A."}, {"image_id": 1, "caption": "B."}]', "2 captions of image 1"),
        ("r.json", '[{"image_id": 9, "caption": "A."}]', "no references for 1 of 1 candidates"),
        ("r.json", '[{"image_id": 1, "caption": "A."}]', "no candidate for 2 of 3 images"),
        ("r.csv", "name;satz\n1;A.\n", "name the columns image_id and caption"),
        (
            "r.json",
            '[{"image_id": 1, "caption": null}]',
            "entry 0, has no value in caption; write the caption, or leave the",
        ),
        ("r.csv", "image_id,caption\n,A.\n", "has no value in image_id; write the image's id, or leave"),
        ("none.csv", None, "is not a file"),
    ],
)
def test_captions_that_cannot_be_scored_are_told_in_one_line(captioning, references, tmp_path, name, content, fault):
    if content is not None:
        (tmp_path / name).write_text(content)
    code, _, told = captioning("score", tmp_path / name, references)
    assert (code, fault in told, told.count("\n")) == (2, True, 1), told
