import hashlib
import json
import logging
import shutil
from dataclasses import replace

import pytest

from captioning.evaluation.behaviour import Variant, draw_images, make_variant
from captioning.generation.config import UNRECORDED, GenerationConfig
from captioning.training.checkpoint_description import OPTIMIZER
from cluster.data.shard_set import ShardSet
from cluster.evaluation import cache as evaluation_cache
from cluster.evaluation.cache import cached_evaluation, cached_variants, model_digest
from cluster.evaluation.evaluate import evaluate_split, load_captioner
from tests.support.trained_models import BETTER, WORSE, resolved, trained

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def shard_set(drawn_shards):
    return ShardSet(drawn_shards)


@pytest.fixture(scope="module")
def model(shard_set, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("model") / "m", shard_set, BETTER)


@pytest.fixture(scope="module")
def filled(model, shard_set, tmp_path_factory):
    """Return a cache with one evaluation."""
    cache = tmp_path_factory.mktemp("filled")
    evaluated(model, shard_set, cache)
    return cache


@pytest.fixture
def computed(model, shard_set, cache, monkeypatch):
    """Return the list of evaluations that are computed from now on, each of which is the cache's first one."""
    found, again = evaluated(model, shard_set, cache), []

    def compute(*_, **__):
        again.append(found)
        return found

    monkeypatch.setattr(evaluation_cache, "evaluate_split", compute)
    return again


@pytest.fixture
def cache(filled, tmp_path):
    """Return a copy of the cache with one evaluation."""
    return shutil.copytree(filled, tmp_path / "evaluations")


def evaluated(model, shard_set, cache, *, beam_size=3, search=None, **options):
    options |= {"generation": search or GenerationConfig(beam_size=beam_size), "cache": cache}
    return cached_evaluation(model, shard_set, "val", batch_size=30, **options)


def varied(model, shard_set, cache, *, seed=0, num_images=4):
    return cached_variants(
        model,
        shard_set,
        "val",
        num_images=num_images,
        seed=seed,
        generation=GenerationConfig(),
        batch_size=30,
        cache=cache,
    )


def without_weights(model, folder):
    """Return a copy of a model that has the same digest but cannot be loaded."""
    shutil.copytree(model.folder, folder)
    copy = resolved(folder)
    (folder / "model.safetensors").unlink()
    return copy


def entry(cache):
    (path,) = cache.iterdir()
    return path


def alter(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("odd", [7, "dogs/1.jpg"])
def test_images_that_are_left_out_are_named_also_from_the_cache(
    model, shard_set, cache, tmp_path, monkeypatch, caplog, odd
):
    found = replace(evaluated(model, shard_set, cache), left_out=(odd,))
    monkeypatch.setattr(evaluation_cache, "evaluate_split", lambda *_, **__: found)
    for _ in range(2):
        assert evaluated(model, shard_set, tmp_path / "empty") == found
    told = [record.getMessage() for record in caplog.records if "are left out of the scores" in record.getMessage()]
    assert [line.endswith(f"no human caption of theirs has a word (first: image {odd})") for line in told] == [True] * 2


def test_an_evaluation_from_the_cache_is_the_one_that_was_computed(model, shard_set, cache, tmp_path):
    found = evaluated(without_weights(model, tmp_path / "m"), shard_set, cache)
    assert found == evaluate_split(model.folder, shard_set, "val", step=BETTER, batch_size=30)


def test_an_evaluation_from_the_cache_leaves_it_as_it_is(model, shard_set, cache):
    before = entry(cache).stat().st_mtime_ns
    evaluated(model, shard_set, cache)
    assert entry(cache).stat().st_mtime_ns == before


def test_it_is_said_where_an_evaluation_comes_from(model, shard_set, cache, caplog, log_lines):
    with caplog.at_level(logging.INFO, logger="cluster.evaluation.cache"):
        evaluated(model, shard_set, cache)
    assert log_lines()[-1].endswith(f"on split val: read from {entry(cache)}")


def test_progress_is_complete_at_once(model, shard_set, cache):
    seen = []
    evaluated(model, shard_set, cache, progress=seen.append)
    assert seen == [30]


def test_the_registrys_copy_is_the_same_model(model, tmp_path):
    shutil.copytree(model.folder, tmp_path / "copy", ignore=shutil.ignore_patterns(OPTIMIZER))
    assert model_digest(resolved(tmp_path / "copy").description) == model_digest(model.description)


def test_other_weights_are_another_model(model, shard_set, tmp_path):
    assert model_digest(trained(tmp_path / "m", shard_set, WORSE).description) != model_digest(model.description)


def test_the_same_weights_of_another_step_keep_their_step(tiny_run, shard_set, tmp_path):
    checkpoints = sorted((tiny_run / "checkpoints").iterdir())
    assert [evaluated(resolved(folder), shard_set, tmp_path).step for folder in checkpoints] == [5, 9]
    assert len(list(tmp_path.iterdir())) == 1


def test_another_search_is_another_entry(model, shard_set, cache):
    assert evaluated(model, shard_set, cache, beam_size=1).generation == GenerationConfig(beam_size=1)
    assert len(list(cache.iterdir())) == 2


def test_another_precision_is_another_entry(model, shard_set, cache):
    assert evaluated(replace(model, precision="bf16"), shard_set, cache).summary()["precision"] == "bf16"
    assert len(list(cache.iterdir())) == 2


def test_every_setting_of_the_search_is_in_the_key(model, shard_set, cache):
    search = GenerationConfig(no_repeat_ngram=1)
    found = evaluated(model, shard_set, cache, search=search)
    assert (found.generation, len(list(cache.iterdir()))) == (search, 2)
    assert found.summary()["generation"] == {"no_repeat_ngram": 1}


def test_an_entry_of_an_earlier_release_has_a_beam_size_and_the_other_settings_defaults(model, shard_set, tmp_path):
    cache = tmp_path / "evaluations"
    search = GenerationConfig(**UNRECORDED)
    wanted = evaluated(model, shard_set, cache, search=search)
    stored = json.loads(entry(cache).read_text())
    assert stored["key"]["beam_size"] == 3
    assert "generation" not in stored["key"]
    del stored["content"]["generation"]
    stored["content"]["beam_size"] = 3
    text = json.dumps([stored["key"], stored["content"]], sort_keys=True, separators=(",", ":"))
    alter(entry(cache), content=stored["content"], digest=hashlib.sha256(text.encode() + b"\n").hexdigest())
    before = entry(cache).read_bytes()
    assert (evaluated(model, shard_set, cache, search=search), entry(cache).read_bytes()) == (wanted, before)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "Unterminated string"),
        (lambda path: path.write_text("[]"), "its digest does not match its content"),
        (lambda path: path.write_bytes(b""), "Expecting value"),
        (lambda path: path.write_bytes(b"\xff"), "'utf-8' codec can't decode"),
        (
            lambda path: path.write_text(path.read_text().replace("a ", "the ", 1)),
            "its digest does not match its content",
        ),
        (lambda path: alter(path, content={}), "its digest does not match its content"),
        (lambda path: alter(path, digest=None), "its digest does not match its content"),
    ],
    ids=["cut", "no object", "empty", "no text", "another word", "no content", "no digest"],
)
def test_a_damaged_entry_is_computed_again_and_said(
    model, shard_set, cache, computed, caplog, log_lines, damage, reason
):
    whole = entry(cache).read_bytes()
    damage(entry(cache))
    caplog.clear()
    evaluated(model, shard_set, cache)
    said = f"{entry(cache)} is damaged ({reason}"
    assert (log_lines()[0].startswith(said), entry(cache).read_bytes() == whole, len(computed)) == (True, True, 1)


def test_an_entry_under_the_name_of_another_is_not_taken_for_it(model, shard_set, cache):
    evaluated(model, shard_set, cache, beam_size=1)
    one, other = cache.iterdir()
    shutil.copyfile(one, other)
    assert [evaluated(model, shard_set, cache, beam_size=size).generation.beam_size for size in (1, 3)] == [1, 3]


def test_a_place_that_cannot_be_written_costs_no_evaluation(model, shard_set, computed, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert len(evaluated(model, shard_set, tmp_path / "file" / "evaluations").captions) == 30
    assert "cannot be written (Not a directory); it will be computed again next time" in caplog.text


def test_variants_are_captioned_as_images_are(model, shard_set, tmp_path):
    reader = shard_set.reader("val")
    samples = [reader.read(number) for number in draw_images(len(reader), 4, seed=0)]
    captioner = load_captioner(model.folder, batch_size=30)
    written = [one.captions[0] for one in captioner.caption(make_variant(one.jpeg, Variant.CROPPED) for one in samples)]
    wanted = dict(zip((one.image_id for one in samples), written, strict=True))
    assert varied(model, shard_set, tmp_path)[Variant.CROPPED] == wanted


def test_variants_from_the_cache_are_those_that_were_computed(model, shard_set, tmp_path):
    computed = varied(model, shard_set, tmp_path / "evaluations")
    assert varied(without_weights(model, tmp_path / "m"), shard_set, tmp_path / "evaluations") == computed


def test_variants_of_other_images_are_another_entry(model, shard_set, tmp_path):
    chosen = [set(varied(model, shard_set, tmp_path, seed=seed)[Variant.CROPPED]) for seed in (0, 1)]
    assert (chosen[0] != chosen[1], len(list(tmp_path.iterdir()))) == (True, 2)


def test_a_split_with_few_images_varies_all_of_them(model, shard_set, tmp_path):
    assert [len(found) for found in varied(model, shard_set, tmp_path, num_images=1000).values()] == [30, 30]
