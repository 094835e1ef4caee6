import http.server
import json
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import mlflow.data

from cluster.config import TrackingConfig
from cluster.tracking.client import create_run
from cluster.tracking.datasets import dataset_input, dataset_of, split_inputs
from cluster.tracking.experiment import experiment_id
from shards.manifest import MANIFEST_NAME, load_manifest
from shards.storage.folders import open_folder
from tests.support.case_table import each_case

DIGEST = "d" * 64


def opened(location):
    """Return the dataset at a location, and its source as MLflow opens it."""
    found = dataset_input("shards-val", location, DIGEST, context="validation", index=MANIFEST_NAME, num_rows=30)
    return found.dataset, mlflow.data.get_source(found)


@each_case(
    ("location", "kind", "content"),
    [
        ("/data/shards", "local", {"uri": "/data/shards"}),
        ("file:///data/a%20b", "local", {"uri": "/data/a b"}),
        ('/data/"quoted"\\', "local", {"uri": '/data/"quoted"\\'}),
        ("s3://bucket/shards", "s3", {"uri": "s3://bucket/shards"}),
        ("s3a://bucket/shards", "s3", {"uri": "s3://bucket/shards"}),
        ("gcs://bucket/shards", "gs", {"uri": "gs://bucket/shards"}),
        ("https://host/shards/?a=b", "http", {"url": "https://host/shards/manifest.json?a=b"}),
    ],
)
def test_a_source_has_the_kind_of_its_place(location, kind, content):
    dataset, source = opened(location)
    assert (dataset.source_type, json.loads(dataset.source), json.loads(source.to_json())) == (kind, content, content)


def test_mlflow_loads_a_folder(drawn_shards):
    assert Path(opened(str(drawn_shards))[1].load()) == drawn_shards


def test_mlflow_loads_the_manifest_from_a_web_server(drawn_shards, tmp_path):
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(drawn_shards))
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        loaded = opened(f"http://127.0.0.1:{server.server_port}")[1].load(str(tmp_path))
        server.shutdown()
    assert Path(loaded).read_bytes() == (drawn_shards / MANIFEST_NAME).read_bytes()


def test_the_splits_of_a_shard_set_are_inputs_of_a_run(client, home, drawn_shards):
    manifest = replace(load_manifest(drawn_shards), licenses=("Attribution License",))
    wanted = [("train", "training"), ("val", "validation"), ("test", "validation")]
    datasets = split_inputs(open_folder(drawn_shards), manifest, wanted)
    experiment = experiment_id(client, TrackingConfig(), home)
    run_id = create_run(client, experiment, key="inputs", name="r", parameters={}, tags={}, datasets=datasets)
    run = client.get_run(run_id)
    found = {
        one.dataset.name: (one.tags[0].value, json.loads(one.dataset.profile)) for one in run.inputs.dataset_inputs
    }
    assert found == {
        "shards-train": ("training", {"num_rows": 120, "licenses": ["Attribution License"]}),
        "shards-val": ("validation", {"num_rows": 30, "licenses": ["Attribution License"]}),
    }
    assert dataset_of(run, "val", manifest.digest) == ("shards-val", manifest.digest[:36])


def test_a_split_that_a_run_did_not_read_has_its_own_name(client):
    assert dataset_of(client.create_run("0"), "val", DIGEST) == ("val", "d" * 36)
