import pytest

from captioning.config import TrainingConfig
from cluster.config import ClusterConfig, HomeConfig, StorageConfig, TrackingConfig, TrainRun, ValidationConfig
from tests.support.case_table import each_case


@each_case("name", ["", "../up", "a/b", ".hidden", "a b"])
def test_a_name_that_cannot_be_a_folder_is_refused(name):
    with pytest.raises(ValueError, match="cannot be a folder's"):
        TrainRun(name=name)


def test_a_batch_smaller_than_the_workers_is_refused():
    with pytest.raises(ValueError, match="a batch of 64 images leaves some of 65 workers"):
        TrainRun(cluster=ClusterConfig(num_workers=65))


@each_case(("num_workers", "expected"), [(3, (3, 3, False)), ("3", (3, 3, False)), ("1:4", (1, 4, True))])
def test_workers_are_a_number_or_bounds(num_workers, expected):
    cluster = ClusterConfig(num_workers=num_workers)
    assert (cluster.min_workers, cluster.max_workers, cluster.is_elastic) == expected


@each_case(("num_workers", "text"), [(1, "1 worker"), (2, "2 workers"), ("2:8", "2 to 8 workers")])
def test_a_number_of_workers_reads_as_text(num_workers, text):
    assert ClusterConfig(num_workers=num_workers).workers_text == text


def test_a_validation_without_captions_is_refused():
    with pytest.raises(ValueError, match="beam_size 0 is out of range; use 1 to 1000"):
        ValidationConfig(beam_size=0)


def test_credentials_in_the_address_of_checkpoints_are_refused():
    with pytest.raises(ValueError, match="checkpoints ftp://host/folder contains credentials"):
        StorageConfig(checkpoints="ftp://me:secret@host/folder")


@pytest.mark.parametrize("name", ["shards", "features"])
def test_credentials_in_the_address_of_shards_are_refused(name):
    with pytest.raises(ValueError, match=rf"^{name} ftp://host/folder contains credentials"):
        TrainRun(**{name: "ftp://me:secret@host/folder"})


def test_credentials_in_the_address_of_a_tracker_are_refused_with_the_variables_to_use():
    with pytest.raises(ValueError, match=r"^uri http://host contains .* set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACK"):
        TrackingConfig(uri="http://me:secret@host")


@each_case("size", [0, -1.0, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(size):
    with pytest.raises(
        ValueError, match=f"cache_gib {size} is too small for a shard, or not finite; use a number above 0"
    ):
        StorageConfig(cache_gib=size)


def test_only_checkpoints_at_a_url_can_be_taken_over():
    with pytest.raises(ValueError, match="take_over does nothing without checkpoints at a URL; leave it out, or use"):
        StorageConfig(take_over=True)


@each_case(
    ("validation", "training", "message"),
    [
        ({"best_by": "validation_loss_nats"}, {}, "use --validation.best-by validation_cider_d, or leave out"),
        ({"where": "beside"}, {}, "whose score may not be known yet .* use --validation.where workers"),
        ({}, {"keep_best": 0}, "--training.keep-best 0 keeps none; use 1 or more"),
    ],
)
def test_a_run_that_cannot_be_self_critical_is_refused(validation, training, message):
    with pytest.raises(ValueError, match=message):
        TrainRun(
            training=TrainingConfig(self_critical_epochs=1.0, **training),
            validation=ValidationConfig(**{"best_by": "validation_cider_d"} | validation),
        )


def test_a_run_without_shards_is_refused():
    with pytest.raises(ValueError, match="no shard set was given; use --shards"):
        TrainRun().shards_folder()


@each_case(
    ("settings", "message"),
    [
        ({"num_workers": 0}, "num_workers 0 is not a number of workers"),
        ({"cpus_per_worker": 0}, "cpus_per_worker 0 cannot train; use 1 or more"),
        ({"num_loader_processes": -1}, "num_loader_processes -1 is not from 0 to 10000"),
        ({"max_restarts": -1}, "max_restarts -1"),
        ({"max_preemptions": -1}, "max_preemptions -1"),
        ({"hang_seconds": 0.0}, "hang_seconds 0.0 is not a time to wait"),
        ({"resize_seconds": float("nan")}, "resize_seconds nan is not a time to wait"),
        ({"num_workers": "4:1"}, "num_workers 4:1 is not a number of workers; use N, or MIN:MAX such as 1:4"),
        ({"num_workers": "many"}, "num_workers many is not a number of workers"),
        ({"num_workers": "0:2"}, "num_workers 0:2 is not a number of workers"),
        ({"resources_per_worker": {"x": 0.0}}, "reserves nothing; use finite amounts above 0"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ClusterConfig(**settings)


@pytest.mark.parametrize("config", [HomeConfig, StorageConfig])
def test_a_file_is_no_home(tmp_path, config):
    (tmp_path / "home").touch()
    with pytest.raises(ValueError, match=f"home {tmp_path}/home is a file; use a folder"):
        config(home=tmp_path / "home")
