import math

import pytest

from cluster.data.shard_set import ShardSet
from cluster.reports.training_story import facts_of, read_story
from cluster.runs.journal import Journal, Row
from cluster.runs.validation_captions import ValidationCaptions, save_captions


@pytest.fixture
def folder(tmp_path):
    """Return the folder of a run of two epochs of two steps, with a validation after each epoch."""
    journal = Journal(tmp_path / "journal")
    for step in range(1, 5):
        metrics = {"train_loss_nats": 5.0 - step, "learning_rate": math.nan, "epoch": step / 2}
        journal.append(Row(step, 1000 * step, metrics))
    for step in (2, 4):
        journal.append_late(Row(step, 9000, {"validation_loss_nats": 4.0 - step / 2, "validation_cider_d": step / 4}))
        ends = {"validation_cider_d": (0.0, 1.0)}
        save_captions(tmp_path, ValidationCaptions(step, {0: f"at {step}", 1: "same", 99: "no such image"}, ends))
    journal.flush()
    return tmp_path


def test_curves_are_over_epochs_with_both_losses_in_one_chart(folder):
    loss, scores = read_story(folder, None, "val").charts  # no learning rate: none of its values is finite
    assert [(curve.name, curve.points[-1]) for curve in loss.curves] == [
        ("training", (2, 1.0)),
        ("validation", (2, 2.0)),
    ]
    assert (loss.x_label, loss.steps_per_x) == ("epoch", 2)
    [cider] = scores.curves
    assert (cider.points, cider.intervals) == ([(1, 0.5), (2, 1.0)], [(1, 0, 1), (2, 0, 1)])


def test_the_same_images_have_a_caption_at_each_validation(folder, drawn_shards):
    story = read_story(folder, ShardSet(drawn_shards), "val")
    assert [list(sample.captions) for sample in story.samples] == [["at 2", "at 4"], ["same", "same"]]
    assert (story.steps, story.seconds, story.num_epochs) == ([2, 4], 8.0, 2.0)


def test_without_shards_or_a_journal_there_is_less_to_show(folder, tmp_path, drawn_shards, caplog):
    assert read_story(folder, None, "val").samples == []
    assert read_story(folder, ShardSet(drawn_shards), "none").samples == []
    assert "leaves out the validation images" in caplog.text
    assert read_story(tmp_path / "none", None, "val").charts == []


def test_a_damaged_segment_is_left_out(folder, caplog):
    next((folder / "journal").glob("*.late.jsonl")).write_text("{")
    assert len(read_story(folder, None, "val").charts) == 1
    assert "the page leaves out a part of the journal" in caplog.text


def test_settings_are_grouped_by_section():
    found = facts_of({"model.hidden_size": 8, "model.flip": True, "data.shards": None}, {"run": "r", "git_commit": ""})
    assert found == [
        ("Model", [("hidden size", "8"), ("flip", "yes")]), ("Data", [("shards", "none")]), ("Lineage", [("run", "r")]),
    ]  # fmt: skip
