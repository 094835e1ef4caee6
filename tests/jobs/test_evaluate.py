"""``captioning evaluate`` from the command line, with an untrained model."""

import json
import shutil

import fsspec
import pytest

from captioning.evaluation.meteor.index import default_folder
from tests.support.html import Page

pytestmark = pytest.mark.usefixtures("tiny_home")


def test_evaluating_gives_one_json_document(captioning, tiny_run, drawn_shards):
    code, printed, _ = captioning("evaluate", tiny_run, "--shards", drawn_shards, "--json")
    result = json.loads(printed)
    assert (code, result["num_images"], result["step"], sorted(result["scores"])) == (
        0, 30, 5, ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "CIDEr-D", "METEOR", "ROUGE-L"],
    )  # fmt: skip


def test_every_score_has_its_interval(captioning, tiny_run, drawn_shards):
    _, printed, table = captioning("evaluate", tiny_run, "--shards", drawn_shards, "--json")
    result = json.loads(printed)
    assert (result["intervals"].keys(), result["confidence"], "95 % interval" in table) == (
        result["scores"].keys(), 0.95, True,
    )  # fmt: skip


def test_the_search_is_recorded_with_the_scores(captioning, tiny_run, drawn_shards, tmp_path):
    flags = ("--beam-size", 4, "--groups", 2, "--no-repeat-ngram", 2, "--html", tmp_path / "page.html")
    result = json.loads(captioning("evaluate", tiny_run, "--shards", drawn_shards, "--json", *flags)[1])
    assert (result["beam_size"], result["generation"]) == (4, {"groups": 2, "no_repeat_ngram": 2})
    assert "with beam size 4 in 2 groups, no 2 words in a row twice." in " ".join(Page(tmp_path / "page.html").texts)


def test_what_was_evaluated_before_is_not_computed_again(captioning, tiny_run, drawn_shards):
    first = captioning("evaluate", tiny_run, "--shards", drawn_shards, "--json")[1]
    _, again, told = captioning("evaluate", tiny_run, "--shards", drawn_shards, "--json")
    assert (again == first, "on split val: read from" in told) == (True, True)


def test_a_page_shows_the_scores_of_each_image(captioning, tiny_run, drawn_shards, tmp_path):
    captioning("evaluate", tiny_run, "--shards", drawn_shards, "--html", tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert (len(page.all("img")), "Evaluation on val" in page.texts) == (30, True)
    assert "CIDEr-D, worst first" in page.texts
    run = Page(tiny_run / "run.html")  # the page of the run has them too
    assert (len(run.all("img")), "Scores of each picture" in run.texts) == (30, True)


@pytest.fixture
def shards_url(drawn_shards, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "meteor").symlink_to(default_folder())  # or the index would be built again
    monkeypatch.setenv("CAPTIONING_CACHE", str(cache))
    system = fsspec.filesystem("memory")
    system.put(str(drawn_shards), "/bucket/shards", recursive=True)
    yield "memory://bucket/shards"
    system.rm("/", recursive=True)


def test_a_shard_set_at_a_url_is_scored_and_captioned_as_its_folder_is(captioning, tiny_run, drawn_shards, shards_url):
    scores = []
    for one in (drawn_shards, shards_url):
        shutil.rmtree(tiny_run.parent.parent / "evaluations", ignore_errors=True)  # or the second is known already
        scores.append(captioning("evaluate", tiny_run, "--shards", one, "--json")[:2])
    lines = [captioning("caption", one, "--model", tiny_run)[1] for one in (drawn_shards, shards_url)]
    assert scores[0] == scores[1]
    assert lines[0].replace(str(drawn_shards), shards_url) == lines[1]


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_an_altered_shard_is_refused_before_an_image_of_its_split_is_captioned(
    captioning, tiny_run, drawn_shards, tmp_path, options
):
    folder = shutil.copytree(drawn_shards, tmp_path / "shards")
    shard = folder / "val-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    code, printed, complaint = captioning("caption", folder, "--model", tiny_run, *options)
    assert (code, printed, "1 of 1 shards differ from the manifest, first val-000000.tar" in complaint) == (2, "", True)


def test_results_are_in_coco_format_with_each_image_once(captioning, tiny_run, drawn_shards, tmp_path):
    captioning("evaluate", tiny_run, "--shards", drawn_shards, "--out", tmp_path / "results.json")
    results = json.loads((tmp_path / "results.json").read_text())
    assert (len({one["image_id"] for one in results}), {tuple(one) for one in results}) == (
        30, {("image_id", "caption")},
    )  # fmt: skip


def test_evaluating_an_unknown_split_is_bad_input(captioning, tiny_run, drawn_shards):
    code, _, complaint = captioning("evaluate", tiny_run, "--shards", drawn_shards, "--split", "test")
    assert (code, complaint) == (2, "error: the shard set has no split test; it has train, val\n")


def test_a_dry_evaluation_scores_nothing_and_creates_no_tracker(captioning, tiny_run, drawn_shards, tmp_path):
    home = tmp_path / "home"
    _, printed, told = captioning("evaluate", tiny_run, "--shards", drawn_shards, "--dry-run", "--home", home)
    assert (printed, "would caption 30 images of split val with beam size 3" in told) == ("", True)
    assert not home.exists()
