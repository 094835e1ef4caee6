import json
import shutil
from dataclasses import replace

import pytest

from captioning.evaluation.bootstrap import compare
from captioning.evaluation.metrics import score_captions, summands
from captioning.generation.config import GenerationConfig
from cluster.config import CacheConfig
from cluster.data.shard_set import ShardSet
from cluster.errors import Refusal
from cluster.evaluation.cache import cached_evaluation, model_digest
from cluster.promotion.gate import COLUMNS, Gate, judge, search_of
from cluster.promotion.gate_config import GateConfig
from tests.support.trained_models import BETTER, WORSE, resolved, trained

pytestmark = pytest.mark.usefixtures("one_thread")

GATE = GateConfig(num_resamples=1000, num_behaviour_images=8)


@pytest.fixture(scope="module")
def shard_set(drawn_shards):
    return ShardSet(drawn_shards)


@pytest.fixture(scope="module")
def models(shard_set, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        steps: trained(folder / str(steps), shard_set, steps, name="captioner", version=str(number))
        for number, steps in enumerate((WORSE, BETTER), start=1)
    }


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("home") / "evaluations"


@pytest.fixture(scope="module")
def promoted(models, shard_set, cache):
    return judge(models[BETTER], models[WORSE], shard_set, "val", GATE, cache=cache)


@pytest.fixture(scope="module")
def refused(models, shard_set, cache):
    return judge(models[WORSE], models[BETTER], shard_set, "val", GATE, cache=cache)


def test_a_better_challenger_passes(promoted):
    assert promoted.is_passed


@pytest.fixture
def trained_on(models, drawn_shards, tmp_path):
    """Return a function that returns the better model, as trained on the shards when they had a digest."""

    def make(digest):
        model = models[BETTER]
        folder = shutil.copytree(model.folder, tmp_path / "model")
        (folder / "config.yaml").write_text(f"shards: {drawn_shards}\n")
        return replace(model, folder=folder, description=replace(model.description, lineage={"shards_digest": digest}))

    return make


def test_a_set_that_was_rebuilt_since_the_training_is_not_judged_on_silently(trained_on, cache):
    with pytest.raises(Refusal, match=r"shards holds shard set \w{12} by now, but .* was trained on d{12}; .*--shards"):
        Gate(config=GATE, storage=CacheConfig(home=cache.parent))(trained_on("d" * 64), None)


def test_another_set_that_is_named_is_judged_on_and_both_are_told(trained_on, drawn_shards, cache, caplog):
    caplog.set_level("INFO")
    gate = Gate(config=GATE, shards=str(drawn_shards), storage=CacheConfig(home=cache.parent))
    found = gate(trained_on("d" * 64), None).evidence
    assert (
        found["challenger"]["trained_on"],
        f"judging on shard set {found['shards_digest'][:12]}; the challenger was "
        "trained on dddddddddddd" in caplog.text,
    ) == ("d" * 64, True)


def test_the_set_that_a_model_was_trained_on_needs_no_name(trained_on, shard_set, cache, caplog):
    caplog.set_level("INFO")
    gate = Gate(config=GATE, storage=CacheConfig(home=cache.parent))
    assert gate(trained_on(shard_set.manifest.digest), None).is_passed
    assert "judging on shard set" not in caplog.text


def test_each_version_is_judged_with_the_search_that_it_was_registered_with(models, shard_set, cache):
    challenger = replace(models[BETTER], generation=GenerationConfig(beam_size=1, no_repeat_ngram=2))
    found = judge(challenger, models[WORSE], shard_set, "val", GATE, cache=cache).evidence
    assert [found[role]["search"] for role in ("challenger", "champion")] == [
        {"beam_size": 1, "generation": {"no_repeat_ngram": 2}},
        {"beam_size": 3, "generation": {"no_repeat_ngram": 3}},
    ]


def test_a_beam_size_of_the_gate_is_that_of_both(models):
    versions = [models[WORSE], replace(models[BETTER], generation=GenerationConfig(beam_size=5, min_words=2))]
    gate = replace(GATE, beam_size=1)
    assert [search_of(one, gate) for one in versions] == [
        GenerationConfig(beam_size=1),
        GenerationConfig(beam_size=1, min_words=2),
    ]


def test_a_worse_challenger_is_refused(refused):
    assert not refused.is_passed


def test_the_reasons_that_refuse_come_first(refused):
    refusing = [criterion.reason for criterion in refused.criteria if not criterion.is_passed]
    assert (len(refusing), list(refused.reasons[:2])) == (2, refusing)


def test_a_model_does_not_pass_over_itself(models, shard_set, cache):
    assert not judge(models[BETTER], models[BETTER], shard_set, "val", GATE, cache=cache).is_passed


def test_the_first_champion_needs_no_other(models, shard_set, cache):
    found = judge(models[WORSE], None, shard_set, "val", GATE, cache=cache)
    assert (found.is_passed, found.reasons[0], found.evidence["champion"], found.evidence["comparison"]) == (
        True, "there is no champion to compare with", None, None,
    )  # fmt: skip


def test_the_first_champion_must_reach_the_floors(models, shard_set, cache):
    gate = GateConfig(num_resamples=1000, num_behaviour_images=8, floors={"BLEU-4": 0.99})
    found = judge(models[BETTER], None, shard_set, "val", gate, cache=cache)
    assert (found.is_passed, "is below the floor 0.99" in found.reasons[0]) == (False, True)


def test_the_table_has_a_row_for_each_criterion(promoted):
    assert [(row[0], row[-1]) for row in promoted.rows()] == [
        ("CIDEr-D", "yes"),
        ("empty captions", "yes"),
        ("same caption re-encoded", "yes"),
        ("same caption cropped", "yes"),
        ("repeated words", "yes"),
    ]


def test_a_row_has_all_columns(promoted):
    assert {len(row) for row in promoted.rows()} == {len(COLUMNS)}


def test_evidence_is_json_that_comes_back(promoted):
    assert json.loads(json.dumps(promoted.evidence)) == promoted.evidence


def test_evidence_names_models_data_and_settings(promoted, models, shard_set):
    found = promoted.evidence
    assert (found["split"], found["num_images"], found["shards_digest"], found["settings"]["confidence"]) == (
        "val", 30, shard_set.manifest.digest, 0.95,
    )  # fmt: skip
    assert [(found[role]["version"], found[role]["digest"]) for role in ("challenger", "champion")] == [
        ("2", model_digest(models[BETTER].description)), ("1", model_digest(models[WORSE].description)),
    ]  # fmt: skip


def test_evidence_holds_the_scores_with_their_intervals(promoted, models, shard_set, cache):
    evaluation = cached_evaluation(
        models[BETTER], shard_set, "val", generation=GenerationConfig(), batch_size=32, cache=cache
    )
    found = promoted.evidence["challenger"]
    assert (found["scores"], found["intervals"]["CIDEr-D"]) == (
        evaluation.scores, list(evaluation.intervals["CIDEr-D"]),
    )  # fmt: skip


def test_the_gain_is_that_of_a_plain_computation(promoted, models, shard_set, cache):
    reader = shard_set.reader("val")
    references = {one.image_id: one.captions for one in map(reader.read, range(len(reader)))}
    cider_d = [
        summands(score_captions(evaluation.captions, references).images)[:, 11:]
        for evaluation in (
            cached_evaluation(
                models[steps], shard_set, "val", generation=GenerationConfig(), batch_size=32, cache=cache
            )
            for steps in (BETTER, WORSE)
        )
    ]
    wanted = compare(*cider_d, num_resamples=1000)
    found = promoted.evidence["comparison"]
    assert (found["difference"], *found["interval"], found["share_better"]) == pytest.approx(
        (wanted.difference, wanted.low, wanted.high, wanted.share_above)
    )


def test_the_same_judgement_again_is_the_same_to_the_byte(promoted, models, shard_set, tmp_path):
    again = judge(models[BETTER], models[WORSE], shard_set, "val", GATE, cache=tmp_path)
    assert json.dumps(again.evidence) == json.dumps(promoted.evidence)


def test_what_is_known_is_not_computed_again(promoted, refused, models, cache, drawn_shards, tmp_path):
    # Without weights and shards, nothing could be computed again.
    shutil.copytree(drawn_shards, tmp_path / "shards", ignore=shutil.ignore_patterns("*.tar"))
    known = [resolved_copy_without_weights(models[steps], tmp_path / str(steps)) for steps in (BETTER, WORSE)]
    again = judge(*known, ShardSet(tmp_path / "shards"), "val", GATE, cache=cache)
    assert again.evidence == promoted.evidence


def resolved_copy_without_weights(model, folder):
    shutil.copytree(model.folder, folder)
    copy = resolved(folder, name=model.name, version=model.version)
    (folder / "model.safetensors").unlink()
    return copy


def test_another_setting_of_the_gate_computes_no_captions_again(promoted, models, shard_set, cache):
    seen = []
    gate = GateConfig(num_resamples=500, num_behaviour_images=8, min_gain=0.5, confidence=0.9)
    judge(models[BETTER], models[WORSE], shard_set, "val", gate, cache=cache, progress=lambda *at: seen.append(at))
    assert seen == [("challenger: captions", 30, 30), ("champion: captions", 30, 30)]


def test_progress_counts_the_captions_of_each_part(models, shard_set, tmp_path):
    seen = []
    judge(models[BETTER], None, shard_set, "val", GATE, cache=tmp_path, progress=lambda *at: seen.append(at))
    parts = dict.fromkeys(what for what, *_ in seen)
    assert {what: seen[[one[0] for one in seen].index(what)] for what in parts} == {
        "challenger: captions": ("challenger: captions", 1, 30),
        "challenger: changed images": ("challenger: changed images", 1, 16),
    }


def test_a_gate_may_judge_by_meteor(models, shard_set, cache):
    gate = replace(GATE, metric="METEOR", floors={"METEOR": 0.0})
    found = judge(models[BETTER], models[WORSE], shard_set, "val", gate, cache=cache)
    assert {"METEOR", "METEOR floor"} <= {criterion.name for criterion in found.criteria}


def test_a_gate_by_a_score_that_was_left_out_is_refused(models, shard_set, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CAPTIONING_CACHE", str(tmp_path / "file"))  # where METEOR's index cannot be
    with pytest.raises(Refusal, match=r"the challenger has no METEOR on split val of .*; judge by another score"):
        judge(models[WORSE], None, shard_set, "val", replace(GATE, metric="METEOR"), cache=tmp_path / "cache")


def test_an_unknown_split_is_named(models, shard_set, cache):
    with pytest.raises(ValueError, match="the shard set has no split test; it has train, val"):
        judge(models[BETTER], None, shard_set, "test", GATE, cache=cache)
