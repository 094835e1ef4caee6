"""The manifest describes its shard set, and detects damage and edits."""

import json
import random
from dataclasses import replace

import pytest

from shards.images import ImageSpec
from shards.manifest import FORMAT_VERSION, MANIFEST_NAME, Manifest, load_manifest
from shards.storage.document import seal
from shards.table.shard_table import ShardRecord


def rewrite(folder, change):
    path = folder / MANIFEST_NAME
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))


def test_a_manifest_comes_back_as_it_was_saved(three_shards):
    folder, manifest = three_shards
    assert load_manifest(folder) == manifest


def test_licences_are_kept_and_are_no_part_of_the_digest(three_shards):
    folder, manifest = three_shards
    assert "licenses" not in json.loads((folder / MANIFEST_NAME).read_bytes())
    named = replace(manifest, licenses=("Attribution License",))
    named.save(folder)
    assert (load_manifest(folder), named.digest) == (named, manifest.digest)


def as_first_written(content):
    """Make a manifest one of format version 1, which had no seal; the first ones did not note annotations either."""
    del content["seal"], content["annotations"]
    content["format_version"] = 1


def test_a_manifest_of_before_the_seal_is_read_and_sealed_when_saved(three_shards):
    folder, manifest = three_shards
    sealed = (folder / MANIFEST_NAME).read_bytes()
    rewrite(folder, as_first_written)
    assert load_manifest(folder) == manifest
    load_manifest(folder).save(folder)
    assert (folder / MANIFEST_NAME).read_bytes() == sealed


def leaves(content, *path):
    """Yield the path of each value in nested objects and lists."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        if isinstance(value, dict | list):
            yield from leaves(value, *path, key)
        else:
            yield *path, key


def alter(content, path):
    """Change a value, and keep its type."""
    for key in path[:-1]:
        content = content[key]
    content[path[-1]] = content[path[-1]] + (1 if isinstance(content[path[-1]], int) else "x")


def test_no_altered_field_goes_unseen(three_shards):
    folder, manifest = three_shards
    replace(manifest, annotations={"captions_train2017.json": "2" * 64}).save(folder)
    path = folder / MANIFEST_NAME
    stored = path.read_bytes()
    for field in leaves(json.loads(stored)):
        path.write_bytes(stored)
        rewrite(folder, lambda content, field=field: alter(content, field))
        with pytest.raises(ValueError, match=r"was edited|has format version 4"):
            load_manifest(folder)


def test_saving_again_gives_the_same_bytes(three_shards):
    folder, _ = three_shards
    before = (folder / MANIFEST_NAME).read_bytes()
    load_manifest(folder).save(folder)
    assert (folder / MANIFEST_NAME).read_bytes() == before


def test_the_file_names_the_digest(three_shards):
    folder, manifest = three_shards
    assert json.loads((folder / MANIFEST_NAME).read_bytes())["digest"] == manifest.digest


def test_the_digest_does_not_depend_on_the_order_of_shards(three_shards):
    _, manifest = three_shards
    shuffled = random.Random(0).sample(manifest.shards, len(manifest.shards))
    assert replace(manifest, shards=tuple(shuffled)).digest == manifest.digest


@pytest.mark.parametrize(
    "change", [{"name": "x.tar"}, {"split": "x"}, {"num_samples": 1}, {"num_bytes": 1}, {"sha256": "x"}]
)
def test_the_digest_changes_with_every_shard(three_shards, change):
    _, manifest = three_shards
    others = (replace(manifest.shards[0], **change), *manifest.shards[1:])
    assert replace(manifest, shards=others).digest != manifest.digest


def test_the_digest_stays_as_it_was_first_defined(three_shards):
    # Recorded once: models name the shard set that they learned from by this digest.
    assert three_shards[1].digest == "b7c2a4d6ef27ca88426df994eb1829a0b84c9525445286b97f62df7b6208a729"


def test_splits_count_their_samples(three_shards):
    assert three_shards[1].splits == {"train": 11, "val": 5}


def test_the_shards_of_a_split_come_by_name(three_shards):
    _, manifest = three_shards
    backward = replace(manifest, shards=manifest.shards[::-1])
    assert [shard.name for shard in backward.of_split("train")] == ["train-000000.tar", "train-000001.tar"]


def test_an_unknown_split_is_refused(three_shards):
    with pytest.raises(ValueError, match="no split test; it has train, val"):
        three_shards[1].of_split("test")


def test_an_unfinished_shard_set_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"manifest.json does not exist: .* is not a finished shard set; run"):
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
    del content["seal"]
    content["seal"] = json.loads(seal(content))["seal"]


FIELDS = ("codec_versions", "samples_per_shard", "seed", "vocabulary_digest", "minimum_word_count")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (altered_record, "was edited: its content does not match its digest"),
        (lost_record, "was edited: its content does not match its digest"),
        (lambda content: content.pop("seal"), "was edited: its content does not match its digest"),
        (lambda content: content.pop("digest"), "was edited: its content does not match its digest"),
        (record_elsewhere, r"names the shard \.\./\.\./train-000000.tar, which is not beside it"),
        (
            lambda content: content.update(format_version=FORMAT_VERSION + 1),
            "format version 6, this release reads 1 to 5; upgrade captioning, or",
        ),
        (lambda content: content.pop("format_version"), "format version None, this release reads 1 to 5"),
        (lambda content: content.update(format_version=0), "format version 0, this release reads 1 to 5"),
        (lambda content: content.update(format_version=True), "format version True, this release reads 1 to 5"),
        (lambda content: content.pop("seed"), r"is damaged \(seed: .*\)"),
        (lambda content: content.update(shards=[{"name": 3}]), r"is damaged \(shards.0.name: .*\)"),
        (
            lambda content: content["image_spec"].update(quality=0),
            r"is damaged \(image_spec: .*quality 0 is out of.*\)",
        ),
    ],
)
def test_an_altered_manifest_is_refused(three_shards, change, message):
    folder, _ = three_shards
    rewrite(folder, change)
    with pytest.raises(
        ValueError, match=message + ";? delete .*manifest.json and run captioning convert again"
    ) as fault:
        load_manifest(folder)
    assert len(str(fault.value).splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"{", b'{"digest": "', b"[]", b"3", b"\xff\xfe{}", b"null"])
def test_a_file_that_is_no_manifest_is_refused(tmp_path, content):
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(ValueError, match=r"manifest.json is damaged \(.+\); delete .* run captioning convert again"):
        load_manifest(tmp_path)
