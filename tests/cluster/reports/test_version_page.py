from dataclasses import replace
from types import SimpleNamespace

import pytest

from captioning.evaluation.metrics import ImageScores
from captioning.training.checkpoint_description import CheckpointDescription
from cluster.data.shard_set import ShardSet
from cluster.evaluation.evaluate import Evaluation
from cluster.reports.run_page import Evaluated
from cluster.reports.training_story import story_of
from cluster.reports.version_page import Rival, write_version_page
from tests.support.html import Page
from tests.support.short_runs import MODEL

DESCRIPTION = CheckpointDescription(
    step=8, model=MODEL, vocabulary_digest="v", max_caption_words=9, lineage={"run": "r", "mlflow_run_id": "id"}
)
VERSION = SimpleNamespace(name="captioner", version="2", description=DESCRIPTION)


@pytest.fixture(scope="module")
def evaluated(drawn_shards):
    shard_set = ShardSet(drawn_shards)
    images = [shard_set.reader("val").read(number).image_id for number in range(2)]
    scores = {
        image: ImageScores(bleu_4=0.5, rouge_l=0.5, cider_d=1.0 + n, bleu_counts=(1,) * 10)
        for n, image in enumerate(images)
    }
    evaluation = Evaluation(
        split="val", shards_digest="d", step=8, scores={"CIDEr-D": 1.5, "BLEU-4": 0.5},
        captions={image: f"new {n}" for n, image in enumerate(images)}, images=scores,
    )  # fmt: skip
    return Evaluated(evaluation, shard_set)


def test_a_version_is_shown_beside_the_champion_with_the_pictures_that_differ_most(evaluated, tmp_path):
    first, second = evaluated.evaluation.captions
    zero = replace(evaluated.evaluation.images[first], cider_d=1.5)
    old = replace(
        evaluated.evaluation, captions={first: "old 0", second: "old 1"}, scores={"CIDEr-D": 1.0},
        images={first: zero, second: replace(zero, cider_d=0.5)},
    )  # fmt: skip
    path = write_version_page(tmp_path, VERSION, evaluated, Rival("version 1", old))
    assert path == tmp_path / "versions" / "captioner-2" / "model.html"
    page = Page(path)
    start = page.texts.index("CIDEr-D")
    assert [text for text in page.texts[start:] if text][:8] == [
        "CIDEr-D", "1.500", "BLEU-4", "0.500", "CIDEr-D against version 1", "+0.500", "pictures", "1 better, 1 worse",
    ]  # fmt: skip
    assert [text for text in page.texts if text in {"new 0", "new 1", "old 0", "old 1", "+1.50", "-0.50"}] == [
        "new 1", "old 1", "+1.50", "new 0", "old 0", "-0.50",
    ]  # fmt: skip
    assert "Pictures that differ most" in page.texts


def test_without_a_champion_or_the_runs_folder_there_are_scores_alone(evaluated, tmp_path):
    page = Page(write_version_page(tmp_path / "none", VERSION, evaluated))
    assert {"captioner version 2", "Scores of each picture", "new 0"} <= set(page.texts)
    assert "The metrics of the training are not on this machine." in page.texts


def test_a_page_that_cannot_be_written_is_a_warning(evaluated, tmp_path, caplog):
    (tmp_path / "versions").touch()
    assert write_version_page(tmp_path, VERSION, evaluated) is None
    assert "the page of captioner 2 could not be written" in caplog.text


def test_a_version_whose_run_is_elsewhere_has_the_curves_that_the_tracker_has(evaluated, tmp_path):
    metrics = {1: {"train_loss_nats": 3.0, "epoch": 0.5}, 2: {"train_loss_nats": 2.0, "epoch": 1.0}}
    page = Page(write_version_page(tmp_path / "none", VERSION, evaluated, story=story_of(metrics, [0, 60_000])))
    assert "Loss" in page.texts
    assert "The metrics of the training are not on this machine." not in page.texts
