"""A set of many shards has their records in a table beside its manifest, which is checked and never half-written."""

import json
from dataclasses import replace

import pyarrow as pa
import pytest

from shards.features.manifest import FeatureEncoder, FeatureManifest, FeatureSettings, load_features
from shards.manifest import MANIFEST_NAME, load_manifest
from shards.storage.document import seal
from shards.storage.files import sha256_of
from shards.storage.folders import open_folder
from shards.table.shard_table import ShardTable
from shards.table.table_file import table_schema
from tests.support.http_server import answering
from tests.support.shard_tables import in_tables


@pytest.fixture
def tabled(three_shards, monkeypatch):
    """Return a shard set that has a table, and its manifest."""
    folder, manifest = three_shards
    in_tables(monkeypatch)
    manifest.save(folder)
    return folder, manifest


def table_in(folder):
    (path,) = folder.glob("shards-*.arrow")
    return path


def test_a_manifest_with_a_table_is_the_same_as_one_with_a_list(tabled):
    folder, manifest = tabled
    found = load_manifest(folder)
    assert isinstance(found.shards, ShardTable)
    assert (found.digest, found.splits) == (manifest.digest, manifest.splits)
    assert replace(found, shards=tuple(found.shards)) == manifest
    assert len((folder / MANIFEST_NAME).read_bytes()) < 1000


def test_the_digest_of_a_table_is_that_of_its_records(tabled):
    folder, manifest = tabled
    found = load_manifest(folder)
    assert replace(found, shards=found.shards[:]).digest == manifest.digest


def test_saving_again_gives_the_same_bytes(tabled):
    folder, _ = tabled
    before = [path.read_bytes() for path in (folder / MANIFEST_NAME, table_in(folder))]
    load_manifest(folder).save(folder)
    assert [path.read_bytes() for path in (folder / MANIFEST_NAME, table_in(folder))] == before


def test_a_set_of_few_shards_is_one_that_an_earlier_release_reads(three_shards):
    folder, _ = three_shards
    content = json.loads((folder / MANIFEST_NAME).read_bytes())
    assert (content["format_version"], len(content["shards"]), [*folder.glob("*.arrow")]) == (3, 3, [])


def test_a_set_that_is_replaced_leaves_no_table_behind(tabled, monkeypatch):
    folder, manifest = tabled
    first = table_in(folder)
    replace(manifest, shards=manifest.shards[:2]).save(folder)
    assert table_in(folder) != first
    monkeypatch.setattr("shards.table.table_file.MOST_LISTED", 3)
    manifest.save(folder)
    assert [*folder.glob("*.arrow")] == []
    assert load_manifest(folder) == manifest


def test_a_kill_before_the_manifest_leaves_the_set_as_it_was(tabled, monkeypatch):
    folder, manifest = tabled

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("shards.table.table_file.seal", killed)
    with pytest.raises(KeyboardInterrupt):
        replace(manifest, shards=manifest.shards[:2]).save(folder)
    assert tuple(load_manifest(folder).shards) == manifest.shards


def test_a_feature_set_has_a_table_as_well(tabled):
    folder, manifest = tabled
    features = FeatureManifest(
        shards=manifest.shards,
        shards_digest=manifest.digest,
        vocabulary_digest="1" * 64,
        encoder=FeatureEncoder(backbone="resnet18", weights="w", image_size_px=64),
        settings=FeatureSettings(),
        num_regions=1,
        num_channels=2,
    )
    features.save(folder)
    found = load_features(folder)
    assert isinstance(found.shards, ShardTable)
    assert (found.digest, tuple(found.shards)) == (features.digest, features.shards)


def test_a_set_on_a_web_server_is_read_through_the_cache(tabled, tmp_path, monkeypatch):
    monkeypatch.setenv("CAPTIONING_CACHE", str(tmp_path / "cache"))
    folder, manifest = tabled
    files = {f"/set/{path.name}": (200, path.read_bytes()) for path in (folder / MANIFEST_NAME, table_in(folder))}
    with answering(files) as url:
        found = load_manifest(open_folder(f"{url}/set"))
    assert tuple(found.shards) == manifest.shards  # from the node's copy
    assert (tmp_path / "cache" / sha256_of(table_in(folder))).exists()


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flipped, "shards-.*.arrow is not the table that was written with it"),
        (cut, "shards-.*.arrow is not the table that was written with it"),
        (lambda path: path.unlink(), "shards-.*.arrow is missing"),
    ],
)
def test_a_damaged_table_is_refused(tabled, damage, reason):
    folder, _ = tabled
    damage(table_in(folder))
    with pytest.raises(ValueError, match=rf"manifest.json is damaged \({reason}\); delete .* run captioning convert"):
        load_manifest(folder)


def exchange(folder, content, name=None):
    """Exchange the table of a set for another file, as somebody would who knows how manifests are sealed."""
    path = table_in(folder)
    path.write_bytes(content)
    manifest = json.loads((folder / MANIFEST_NAME).read_bytes())
    del manifest["seal"]
    manifest["table"] = {"name": name or path.name, "num_bytes": len(content), "sha256": sha256_of(path)}
    (folder / MANIFEST_NAME).write_bytes(seal(manifest))


def stored(rows, schema):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    return sink.getvalue().to_pybytes()


ROW = {"name": "a.tar", "split": "train", "num_samples": 1, "num_bytes": 1, "set_aside": []}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no table", "shards-.*.arrow is not a table: .*"),
        (stored([ROW | {"name": "../a.tar"}], table_schema()), r"its shard \.\./a\.tar is not beside it"),
        (stored([ROW | {"name": "."}], table_schema()), r"its shard \. is not beside it"),
        (stored([ROW | {"num_samples": None}], table_schema()), "has other columns than name, split, .*"),
        (stored([{"name": "a"}], pa.schema({"name": pa.string()})), "has other columns than name, split, .*"),
    ],
)
def test_a_table_of_somebody_else_is_refused(tabled, content, reason):
    folder, _ = tabled
    exchange(folder, content)
    with pytest.raises(ValueError, match=rf"manifest.json is damaged \((shards-.*)?{reason}\); delete") as fault:
        load_manifest(folder)
    assert len(str(fault.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["../shards-0123456789abcdef.arrow", "shards-x.arrow", 3])
def test_a_table_elsewhere_is_neither_read_nor_removed(tabled, name):
    folder, manifest = tabled
    exchange(folder, b"", name)
    with pytest.raises(ValueError, match=r"is damaged \(it does not name its table's file\)"):
        load_manifest(folder)
    elsewhere = folder.parent / "shards-0123456789abcdef.arrow"
    elsewhere.write_bytes(b"")
    manifest.save(folder)
    assert elsewhere.exists()


def test_a_lack_of_memory_is_not_a_damaged_table(tabled, monkeypatch):
    def fail(content):
        raise pa.ArrowMemoryError("malloc of size 64 failed")

    monkeypatch.setattr("pyarrow.ipc.open_file", fail)
    with pytest.raises(MemoryError, match="malloc of size 64 failed"):
        load_manifest(tabled[0])
