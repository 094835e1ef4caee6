"""Indexed tars are a shard set: read exactly once, with the words of a conversion, resumed after a fault."""

from collections import Counter

import pytest

from captioning.config import ModelConfig, TrainingConfig
from captioning.data.vocabulary import build_vocabulary
from cluster.config import ClusterConfig
from cluster.data.conversion_config import IndexConfig
from cluster.data.loading import training_batches
from cluster.data.shard_set import ShardSet
from cluster.data.tars.indexing import default_scanners, index
from cluster.data.tars.plan import plan_index
from cluster.errors import Refusal
from shards.export import export_split
from shards.sources.coco import read_coco
from tests.support.http_server import answering
from tests.support.pictures import encoded, noise
from tests.support.raw_tars import tar_samples, write_tar

PNG, WEBP = encoded(noise(40, 30), "PNG"), encoded(noise(40, 30), "WEBP")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPTIONING_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tars(tmp_path):
    """Return a folder of three tars whose keys repeat, with images of three formats."""
    folder = tmp_path / "tars"
    folder.mkdir()
    for number, (suffix, content) in enumerate([("jpg", None), ("png", PNG), ("webp", WEBP)]):
        samples = tar_samples("abcdefg", suffix=suffix, content=content, json_of=lambda name: {"url": name})
        write_tar(folder / f"{number}.tar", samples)
    return folder


def make(addresses, folder, **changes):
    plan = plan_index(addresses, folder, IndexConfig(minimum_word_count=1, **changes))
    return index(plan, num_workers=0)


def test_every_sample_is_read_once_an_epoch_by_any_number_of_workers(tars, tmp_path):
    make([str(tars)], tmp_path / "set")
    shard_set, model = ShardSet(tmp_path / "set"), ModelConfig(image_size_px=32)
    config = TrainingConfig(batch_size=7, seed=1)
    for world_size in (1, 2, 3):
        seen = Counter(
            (batch.shards[row], batch.keys[row])
            for rank in range(world_size)
            for parts in training_batches(
                shard_set, "train", model=model, config=config, ranks=(rank, world_size), steps=range(3)
            )
            for batch in parts
            for row in range(batch.num_images)
        )
        assert seen == {(f"{number}.tar", key): 1 for number in range(3) for key in "abcdefg"}


def test_the_vocabulary_is_that_of_a_conversion(tars, tmp_path):
    make([str(tars)], tmp_path / "set")
    captions = [f"A dog and {name}." for name in "abcdefg"] * 3
    assert ShardSet(tmp_path / "set").vocabulary.digest == build_vocabulary(captions, minimum_count=1).digest


def test_shared_keys_become_ids_of_their_own(tars, tmp_path, caplog):
    make([str(tars)], tmp_path / "set")
    reader = ShardSet(tmp_path / "set").reader("train")
    ids = [reader.read(number).image_id for number in range(len(reader))]
    assert ids == [f"{number}/{key}" for number in range(3) for key in "abcdefg"]
    assert "tars share the keys of 7 of the samples" in caplog.text


def test_an_index_is_exported_as_pictures_of_their_format(tars, tmp_path):
    manifest = make([str(tars)], tmp_path / "set")
    assert export_split(tmp_path / "set", manifest, "train", tmp_path / "coco") == 21
    exported = read_coco(tmp_path / "coco").splits["train"]
    assert Counter(one.path.suffix for one in exported) == {".jpg": 7, ".png": 7, ".webp": 7}
    assert {one.path.read_bytes() for one in exported if one.path.suffix == ".webp"} == {WEBP}


def test_tars_of_a_web_server_are_the_same_set(tars, tmp_path):
    local = make([str(tars)], tmp_path / "local")
    with answering({f"/t/{number}.tar": (200, (tars / f"{number}.tar").read_bytes()) for number in range(3)}) as url:
        manifest = make([f"{url}/t/{{0..2}}.tar"], tmp_path / "set")
        assert manifest.digest == local.digest
        reader = ShardSet(tmp_path / "set").reader("train")
        assert [reader.read(number).image_id for number in (0, 20)] == ["0/a", "2/g"]


def test_what_was_scanned_is_kept_when_a_tar_is_faulty(tars, tmp_path, monkeypatch):
    whole = (tars / "1.tar").read_bytes()
    (tars / "1.tar").write_bytes(whole[:3000])
    with pytest.raises(Refusal, match=r"1 of 3 files cannot be used .*1.tar: it is no whole tar.* --on-bad skip"):
        make([str(tars)], tmp_path / "set")
    (tars / "1.tar").write_bytes(whole)
    plan = plan_index([str(tars)], tmp_path / "set", IndexConfig(minimum_word_count=1))
    assert [task.location.rpartition("/")[2] for task in plan.missing] == ["1.tar"]
    assert index(plan, num_workers=0).splits == {"train": 21}


def test_faulty_tars_are_left_out_where_wanted(tars, tmp_path):
    (tars / "1.tar").write_bytes(b"")
    manifest = make([str(tars)], tmp_path / "set", on_bad="skip")
    assert [(one.key, one.reason) for one in manifest.set_aside] == [(f"{tars}/1.tar", "it is empty; fetch it again")]
    assert make([str(tars)], tmp_path / "set", on_bad="skip") == manifest


def test_ray_is_not_started_for_little(tars, tmp_path):
    plan = plan_index([str(tars)], tmp_path / "set", IndexConfig())
    assert default_scanners(plan, ClusterConfig()) == 0
