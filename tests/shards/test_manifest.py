"""The manifest says what is there, and notices what is not."""

import json
import random
from dataclasses import replace

import pytest

from shards.images import ImageSpec
from shards.manifest import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    Manifest,
    ShardRecord,
    load_manifest,
    sha256_of,
    verify_shards,
)
from shards.samples import SetAside

CONTENTS = {"train-000000.tar": b"first", "train-000001.tar": b"second", "val-000000.tar": b"third"}
SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.fixture
def shard_set(tmp_path):
    records = []
    for name, content in CONTENTS.items():
        path = tmp_path / name
        path.write_bytes(content)
        faults = (SetAside(key="000000000007", reason="7.jpg: it is empty; fetch it again"),)
        records.append(
            ShardRecord(
                name=name,
                split=name.partition("-")[0],
                num_samples=len(content),
                num_bytes=len(content),
                sha256=sha256_of(path),
                plan_digest="0" * 64,
                set_aside=faults if name.startswith("val") else (),
            )
        )
    manifest = Manifest(
        shards=tuple(records),
        image_spec=ImageSpec(shorter_side_px=64),
        codec_versions={"pillow": "1.2", "libjpeg": "3.4"},
        samples_per_shard=10,
        seed=3,
        vocabulary_digest="1" * 64,
        minimum_word_count=2,
        set_aside=(SetAside(key="images[3]", reason="images[3] has no id"),),
    )
    manifest.save(tmp_path)
    return tmp_path, manifest


def rewrite(folder, change):
    path = folder / MANIFEST_NAME
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))


def test_a_manifest_comes_back_as_it_was_saved(shard_set):
    folder, manifest = shard_set
    assert load_manifest(folder) == manifest


def test_a_manifest_of_before_annotations_were_noted_is_read(shard_set):
    folder, manifest = shard_set
    rewrite(folder, lambda content: content.pop("annotations"))
    assert load_manifest(folder) == manifest


def test_saving_again_gives_the_same_bytes(shard_set):
    folder, _ = shard_set
    before = (folder / MANIFEST_NAME).read_bytes()
    load_manifest(folder).save(folder)
    assert (folder / MANIFEST_NAME).read_bytes() == before


def test_the_file_names_the_digest(shard_set):
    folder, manifest = shard_set
    assert json.loads((folder / MANIFEST_NAME).read_bytes())["digest"] == manifest.digest


def test_the_digest_does_not_depend_on_the_order_of_shards(shard_set):
    _, manifest = shard_set
    shuffled = random.Random(0).sample(manifest.shards, len(manifest.shards))
    assert replace(manifest, shards=tuple(shuffled)).digest == manifest.digest


@pytest.mark.parametrize(
    "change", [{"name": "x.tar"}, {"split": "x"}, {"num_samples": 1}, {"num_bytes": 1}, {"sha256": "x"}]
)
def test_the_digest_changes_with_every_shard(shard_set, change):
    _, manifest = shard_set
    others = (replace(manifest.shards[0], **change), *manifest.shards[1:])
    assert replace(manifest, shards=others).digest != manifest.digest


def test_the_digest_stays_as_it_was_first_defined(shard_set):
    # Recorded once: models name the shard set that they learned from by this digest.
    assert shard_set[1].digest == "b7c2a4d6ef27ca88426df994eb1829a0b84c9525445286b97f62df7b6208a729"


def test_splits_count_their_samples(shard_set):
    assert shard_set[1].splits == {"train": 11, "val": 5}


def test_the_shards_of_a_split_come_by_name(shard_set):
    _, manifest = shard_set
    backward = replace(manifest, shards=manifest.shards[::-1])
    assert [shard.name for shard in backward.of_split("train")] == ["train-000000.tar", "train-000001.tar"]


def test_an_unknown_split_is_refused(shard_set):
    with pytest.raises(ValueError, match="no split test; it has train, val"):
        shard_set[1].of_split("test")


def test_an_unfinished_shard_set_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"manifest.json does not exist: .* is no finished shard set; run"):
        load_manifest(tmp_path)


def altered_record(content):
    content["shards"][1]["sha256"] = "0" * 64


def lost_record(content):
    del content["shards"][1]


def record_elsewhere(content):
    content["shards"][0]["name"] = "../../train-000000.tar"
    shards = [ShardRecord(**{**shard, "set_aside": ()}) for shard in content["shards"]]
    content["digest"] = Manifest(
        shards=tuple(shards), **{key: content[key] for key in FIELDS}, image_spec=ImageSpec()
    ).digest


FIELDS = ("codec_versions", "samples_per_shard", "seed", "vocabulary_digest", "minimum_word_count")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (altered_record, "was altered: its records do not give its digest"),
        (lost_record, "was altered: its records do not give its digest"),
        (lambda content: content.pop("digest"), "was altered: its records do not give its digest"),
        (record_elsewhere, r"names the shard \.\./\.\./train-000000.tar, which is not beside it"),
        (lambda content: content.update(format_version=FORMAT_VERSION + 1), "format version 2, this release reads 1"),
        (lambda content: content.pop("format_version"), "format version None, this release reads 1"),
        (lambda content: content.pop("seed"), r"is damaged \(seed: .*\)"),
        (lambda content: content.update(shards=[{"name": 3}]), r"is damaged \(shards.0.name: .*\)"),
        (lambda content: content["image_spec"].update(quality=0), r"is damaged \(image_spec: .*quality 0 does not.*\)"),
    ],
)
def test_an_altered_manifest_is_refused(shard_set, change, message):
    folder, _ = shard_set
    rewrite(folder, change)
    with pytest.raises(
        ValueError, match=message + "; delete .*manifest.json and run captioning convert again"
    ) as fault:
        load_manifest(folder)
    assert len(str(fault.value).splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"{", b'{"digest": "', b"[]", b"3", b"\xff\xfe{}", b"null"])
def test_a_file_that_is_no_manifest_is_refused(tmp_path, content):
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(ValueError, match=r"manifest.json is damaged \(.+\); delete .* run captioning convert again"):
        load_manifest(tmp_path)


@pytest.mark.parametrize("read_all", [True, False])
def test_whole_shards_pass(shard_set, read_all):
    folder, manifest = shard_set
    verify_shards(folder, manifest.shards, read_all=read_all)


@pytest.mark.parametrize("read_all", [True, False])
def test_a_missing_shard_is_named(shard_set, read_all):
    folder, manifest = shard_set
    (folder / "train-000001.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 1 of 3 shards, first train-000001.tar; run captioning convert"):
        verify_shards(folder, manifest.shards, read_all=read_all)


@pytest.mark.parametrize("content", [b"secon", b"", b"seconds"])
@pytest.mark.parametrize("read_all", [True, False])
def test_a_shard_of_another_size_is_named(shard_set, content, read_all):
    folder, manifest = shard_set
    (folder / "train-000001.tar").write_bytes(content)
    with pytest.raises(ValueError, match=r"1 of 3 shards differ from the manifest, first train-000001.tar; run"):
        verify_shards(folder, manifest.shards, read_all=read_all)


def test_another_byte_is_noticed_if_all_are_read(shard_set):
    folder, manifest = shard_set
    for name in ("train-000001.tar", "val-000000.tar"):
        (folder / name).write_bytes(b"S" + CONTENTS[name][1:])
    verify_shards(folder, manifest.shards, read_all=False)
    with pytest.raises(ValueError, match=r"2 of 3 shards differ from the manifest, first train-000001.tar"):
        verify_shards(folder, manifest.shards)


def test_a_split_can_be_verified_alone(shard_set):
    folder, manifest = shard_set
    (folder / "val-000000.tar").unlink()
    verify_shards(folder, manifest.of_split("train"))


def test_sha256_is_that_of_the_standard(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file") == SHA256_OF_ABC
