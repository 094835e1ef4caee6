"""Jobs from the command line to their results, on a model that never trained."""

import json
import shutil

import fsspec
import pytest

from jobs.cli import run_job
from shards.synthetic.scenes import draw_scene, render


@pytest.fixture
def captioning(tiny_run, monkeypatch, capsys):
    """Return a function that runs a command line and returns (exit code, standard output, standard error)."""
    monkeypatch.setenv("CAPTIONING_HOME", str(tiny_run.parent.parent))

    def run(job, *arguments):
        with pytest.raises(SystemExit) as ended:
            run_job(job, [str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return run


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        render(draw_scene(0, number, size_px=64)).save(folder / f"{number}.png")
    return folder


def test_evaluating_gives_one_json_document(captioning, tiny_run, drawn_shards):
    code, printed, _ = captioning("evaluate", tiny_run, "--shards", drawn_shards, "--json")
    result = json.loads(printed)
    assert (code, result["num_images"], result["step"], sorted(result["scores"])) == (
        0, 30, 5, ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "CIDEr-D", "ROUGE-L"],
    )  # fmt: skip


def test_every_score_has_its_interval(captioning, tiny_run, drawn_shards):
    _, printed, table = captioning("evaluate", tiny_run, "--shards", drawn_shards, "--json")
    result = json.loads(printed)
    assert (result["intervals"].keys(), result["confidence"], "95 % interval" in table) == (
        result["scores"].keys(), 0.95, True,
    )  # fmt: skip


def test_what_was_evaluated_before_is_not_computed_again(captioning, tiny_run, drawn_shards):
    first = captioning("evaluate", tiny_run, "--shards", drawn_shards, "--json")[1]
    _, again, told = captioning("evaluate", tiny_run, "--shards", drawn_shards, "--json")
    assert (again == first, "on val: from" in told) == (True, True)


@pytest.fixture
def shards_url(drawn_shards, tmp_path, monkeypatch):
    monkeypatch.setenv("CAPTIONING_CACHE", str(tmp_path / "cache"))
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


def test_results_are_in_coco_format_with_each_image_once(captioning, tiny_run, drawn_shards, tmp_path):
    captioning("evaluate", tiny_run, "--shards", drawn_shards, "--out", tmp_path / "results.json")
    results = json.loads((tmp_path / "results.json").read_text())
    assert (len({one["image_id"] for one in results}), {tuple(one) for one in results}) == (
        30, {("image_id", "caption")},
    )  # fmt: skip


def test_evaluating_an_unknown_split_is_bad_input(captioning, tiny_run, drawn_shards):
    code, _, complaint = captioning("evaluate", tiny_run, "--shards", drawn_shards, "--split", "test")
    assert (code, complaint) == (2, "error: the shard set has no split test; it has train, val\n")


def test_a_dry_evaluation_scores_nothing(captioning, tiny_run, drawn_shards):
    _, printed, told = captioning("evaluate", tiny_run, "--shards", drawn_shards, "--dry-run")
    assert (printed, "would caption 30 images of val with a beam of 3" in told) == ("", True)


def test_captions_are_a_line_an_image(captioning, tiny_run, pictures):
    _, printed, _ = captioning("caption", pictures, "--model", tiny_run)
    names = [line.split("\t")[0] for line in printed.splitlines()]
    assert names == [str(pictures / f"{number}.png") for number in range(3)]


def test_captions_as_json_have_their_alternatives(captioning, tiny_run, pictures):
    _, printed, _ = captioning("caption", pictures / "0.png", "--model", tiny_run, "--json")
    (one,) = json.loads(printed)
    assert (one["name"], len(one["captions"])) == (str(pictures / "0.png"), 3)


def test_a_shard_set_is_captioned(captioning, tiny_run, drawn_shards):
    _, printed, _ = captioning("caption", drawn_shards, "--model", tiny_run, "--split", "val")
    assert len(printed.splitlines()) == 30


def test_a_page_shows_the_pictures(captioning, tiny_run, pictures, tmp_path):
    captioning("caption", pictures, "--model", tiny_run, "--html", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().count("data:image/jpeg;base64,") == 3


def test_a_faulty_image_is_named_and_the_others_are_captioned(captioning, tiny_run, pictures):
    (pictures / "1.png").write_bytes(b"no picture")
    code, printed, complaint = captioning("caption", pictures, "--model", tiny_run)
    assert (code, len(printed.splitlines()), "error: 1 of 3 inputs have no caption" in complaint) == (2, 2, True)


def test_a_folder_without_images_is_named(captioning, tiny_run, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, complaint = captioning("caption", tmp_path / "empty", "--model", tiny_run)
    assert (code, "empty holds no image" in complaint) == (2, True)


def test_a_dry_conversion_writes_nothing(captioning, drawn_shards, tmp_path):
    _, _, told = captioning("convert", drawn_shards.parent / "scenes", tmp_path / "out", "--dry-run")
    assert ((tmp_path / "out").exists(), "train-000000.tar with 120 images" in told) == (False, True)


def test_a_conversion_says_what_it_made(captioning, drawn_shards, tmp_path):
    arguments = ("convert", drawn_shards.parent / "scenes", tmp_path / "out", "--num-workers", "0", "--json")
    _, printed, _ = captioning(*arguments)
    assert json.loads(printed)["splits"] == {"train": 120, "val": 30}
