"""Plans of an extraction, what extraction refuses, and which feature sets training refuses."""

import shutil
from dataclasses import replace

import pytest
import torch
import torchvision

from captioning.config import ModelConfig, TrainingConfig
from cluster.checks.data import check_data
from cluster.config import TrainRun
from cluster.data.extraction import digest_of_features, encoder_identity, extract
from cluster.data.shard_set import ShardSet
from cluster.runs.identity import identity_of
from tests.support.feature_sets import ENCODER, SEED, content, damage, extracted, plan, settings


@pytest.fixture(scope="module")
def folder(drawn_features):
    return drawn_features


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "features")


@pytest.fixture
def broken(drawn_shards, tmp_path):
    """Return a shard set with an image that does not decode, and its key."""
    shards = shutil.copytree(drawn_shards, tmp_path / "broken")
    key = ShardSet(shards).reader("train").read(0).key
    damage(shards / "train-000000.tar", key)
    return shards, key


def run_on(shards, features, **changes):
    settings = {"model": ENCODER, "training": TrainingConfig(seed=SEED), **changes}
    return TrainRun(shards=shards, features=features, **settings)


def test_the_digest_is_known_before_anything_is_computed(drawn_shards, folder):
    digest = digest_of_features(ShardSet(drawn_shards), model=ENCODER, settings=settings())
    assert digest == plan(drawn_shards, folder).digest == ShardSet(drawn_shards, folder).features_digest


def test_the_size_is_estimated(drawn_shards, folder, tmp_path):
    written = sum(path.stat().st_size for path in folder.glob("*.tar"))
    assert plan(drawn_shards, tmp_path).num_missing_bytes == pytest.approx(written, rel=0.25)


def test_a_second_extraction_has_nothing_to_do(drawn_shards, folder):
    assert plan(drawn_shards, folder).missing == ()


@pytest.mark.parametrize("lost", ["train-000001.tar", "records/train-000001.tar.json"])
def test_only_what_is_missing_is_computed_again(drawn_shards, folder, copied, lost):
    (copied / lost).unlink()
    again = plan(drawn_shards, copied)
    assert [shard.name for shard in again.missing] == ["train-000001.tar"]
    extract(again, num_workers=0)
    assert content(copied) == content(folder)


def test_an_altered_shard_is_computed_again(drawn_shards, folder, copied):
    shard = copied / "train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    extract(plan(drawn_shards, copied), num_workers=0)
    assert content(copied) == content(folder)


def test_what_a_killed_extraction_left_is_removed(drawn_shards, folder, copied):
    for name in (".train-000000.tar.0123.tmp", "other-000000.tar"):
        (copied / name).touch()
    extract(plan(drawn_shards, copied), num_workers=0)
    assert content(copied) == content(folder)


def test_splits_are_added_to_those_that_are_there(drawn_shards, folder, tmp_path):
    for splits in (("val",), ("train",)):
        extract(plan(drawn_shards, tmp_path, splits=splits), num_workers=0)
    assert content(tmp_path) == content(folder)


def test_progress_counts_images(drawn_shards, tmp_path):
    counts = []
    extract(plan(drawn_shards, tmp_path), num_workers=0, progress=counts.append)
    assert (counts == sorted(counts), counts[-1]) == (True, 150)


def test_this_process_computes_with_the_threads_of_an_actor(drawn_shards, tmp_path):
    before, seen = torch.get_num_threads(), set()

    def progress(_):
        seen.add(torch.get_num_threads())

    extract(plan(drawn_shards, tmp_path, splits=["val"]), num_workers=0, cpus_per_worker=before + 1, progress=progress)
    assert (seen, torch.get_num_threads()) == ({before + 1}, before)


def test_an_encoder_without_weights_is_known_by_its_seed():
    assert [encoder_identity(ENCODER, seed=seed).weights for seed in (1, 2)] == ["none (seed 1)", "none (seed 2)"]


def test_an_encoder_is_known_by_its_weights_wherever_they_lie(tmp_path):
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).write_bytes(b"weights")
    models = [ModelConfig(weights=str(tmp_path / name)) for name in ("a.pth", "b.pth")]
    first, second = (encoder_identity(model, seed=0) for model in models)
    assert (first == second, first.weights[:7]) == (True, "sha256:")


def test_features_of_an_encoder_that_trains_are_refused(drawn_shards, tmp_path):
    with pytest.raises(ValueError, match=r"is trained from features.12 on, so its features change with every step"):
        plan(drawn_shards, tmp_path, model=replace(ENCODER, trainable_from="features.12"))


def test_the_folder_of_a_shard_set_is_refused(drawn_shards):
    with pytest.raises(ValueError, match="has a shard set; choose another folder for its features"):
        plan(drawn_shards, drawn_shards)


def test_a_folder_of_source_code_is_refused(drawn_shards, tmp_path):
    (tmp_path / "reader.py").touch()
    with pytest.raises(ValueError, match=r"holds reader\.py, which this command does not write; choose a new or empty"):
        plan(drawn_shards, tmp_path)


def test_the_folder_of_other_features_is_refused(drawn_shards, folder):
    with pytest.raises(ValueError, match="has a finished feature set from other images, another encoder or other"):
        plan(drawn_shards, folder, regions="grid")


def test_an_unknown_split_is_refused(drawn_shards, tmp_path):
    with pytest.raises(ValueError, match="the shard set has no split test; it has train, val"):
        plan(drawn_shards, tmp_path, splits=("test",))


def test_an_image_that_does_not_decode_stops_the_extraction(broken, tmp_path):
    shards, key = broken
    with pytest.raises(ValueError, match=rf"sample {key} of .*train-000000.tar: the image does not decode .* --on-bad"):
        extract(plan(shards, tmp_path / "out"), num_workers=0)
    assert not (tmp_path / "out" / "features.json").exists()


def test_an_image_that_does_not_decode_can_be_stored_without_features(broken, tmp_path):
    shards, key = broken
    manifest = extract(plan(shards, tmp_path / "out", skip_bad=True), num_workers=0)
    assert (manifest.splits, [one.key for one in manifest.shards[0].set_aside]) == ({"train": 120, "val": 30}, [key])


def test_other_splits_stay_whatever_was_set_aside_of_them(broken, tmp_path):
    shards, key = broken
    extract(plan(shards, tmp_path / "out", skip_bad=True), num_workers=0)
    manifest = extract(plan(shards, tmp_path / "out", splits=("val",)), num_workers=0)
    assert (manifest.splits, [one.key for one in manifest.shards[0].set_aside]) == ({"train": 120, "val": 30}, [key])


def test_features_beyond_float16_are_a_fault(drawn_shards, tmp_path):
    classifier = torchvision.models.squeezenet1_1(weights=None)
    large = {name: 30 * tensor for name, tensor in classifier.state_dict().items()}
    torch.save(large, tmp_path / "large.pth")
    model = replace(ENCODER, weights=str(tmp_path / "large.pth"))
    with pytest.raises(ValueError, match="its features are not finite in float16"):
        extract(plan(drawn_shards, tmp_path / "out", model=model), num_workers=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(drawn_shards, tmp_path):
    with pytest.raises(ValueError, match="there is no GPU on this machine; leave out --use-gpu, or use a cluster"):
        extract(plan(drawn_shards, tmp_path), num_workers=0, use_gpu=True)


def test_features_that_fit_are_accepted(drawn_shards, folder):
    assert check_data(run_on(drawn_shards, folder)).features.folder == folder


def test_features_of_another_shard_set_are_refused(drawn_shards, copied):
    right = ShardSet(drawn_shards, copied)
    replace(right.features.manifest, shards_digest="0" * 64).save(copied)
    with pytest.raises(ValueError, match=rf"made from shard set 000000000000, but .* is {right.manifest.digest[:12]};"):
        check_data(run_on(drawn_shards, copied))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": replace(ENCODER, image_size_px=96)}, r"another encoder .*\(image_size_px 36, not 96\); run capt"),
        ({"model": replace(ENCODER, backbone="alexnet")}, r"\(backbone squeezenet1_1, not alexnet\)"),
        ({"training": TrainingConfig(seed=1)}, r"\(weights none \(seed 3\), not none \(seed 1\)\)"),
        (
            {"model": replace(ENCODER, pooling="none")},
            "has only the mean over the regions, but --model.pooling none reads every region; .*--regions grid",
        ),
        (
            {"model": replace(ENCODER, decoder="attend")},
            "has only the mean over the regions, but --model.decoder attend reads every region; .*--regions grid",
        ),
    ],
)
def test_features_that_do_not_fit_the_run_are_refused(drawn_shards, folder, changes, message):
    with pytest.raises(ValueError, match=message):
        check_data(run_on(drawn_shards, folder, **changes))


def test_a_run_that_trains_its_encoder_takes_no_features(folder):
    with pytest.raises(ValueError, match=r"trains from all on, so its features .*; leave out --features or"):
        TrainRun(features=folder, model=replace(ENCODER, trainable_from="all"))


def test_a_split_that_was_not_extracted_is_refused(drawn_shards, tmp_path):
    extracted(drawn_shards, tmp_path, splits=("train",))
    with pytest.raises(ValueError, match="the feature set has no split val; it has train"):
        check_data(run_on(drawn_shards, tmp_path))


def test_missing_and_cut_feature_shards_are_refused(drawn_shards, copied):
    shard = copied / "val-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    with pytest.raises(ValueError, match=r"differ from the manifest, first val-000000.tar; run captioning extract"):
        check_data(run_on(drawn_shards, copied))
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 1 of 1 shards, first val-000000.tar; run captioning extract"):
        check_data(run_on(drawn_shards, copied))


def test_features_are_part_of_a_run_only_if_it_uses_them(drawn_shards):
    run, manifest = run_on(drawn_shards, None), ShardSet(drawn_shards).manifest
    without, with_features = identity_of(run, manifest), identity_of(run, manifest, "f" * 64)
    assert with_features == without | {"data.features": "f" * 64}
    assert not any("features" in name for name in without)
