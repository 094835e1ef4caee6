"""Starter manifests, checked against the schemas of their readers and the versions in pyproject.toml."""

import re
import shlex
import tomllib

import jsonschema
import kubernetes_validate
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.launch.render import KINDS, render
from cluster.launch.settings import LaunchConfig, Versions
from tests.support.case_table import each_case
from tests.support.kuberay_fields import schema_of
from tests.support.repository import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSIONS = Versions(captioning="0.9", ray="2.61.3", mlflow="3.18.2", python="3.12")
# Settings that the kinds need.
NEEDED = {"machine_image": "ami-1", "project": "p", "entrypoint": "captioning train coco --shards s3://bucket/shards"}
EVERYTHING = NEEDED | {
    "image": "registry.example/captioning:1",
    "identity": "nodes",
    "tracking_uri": "http://captioning-mlflow:5000/a&b",
    "node_selector": {"cloud.google.com/gke-spot": "true"},
}
SITES = {
    "as little as can be": NEEDED,
    "everything": EVERYTHING,
    "CPUs on demand": NEEDED | {"gpus_per_node": 0, "use_spot": False, "nodes": "2"},
}


def rendered(kind, **settings):
    return render(kind, LaunchConfig(**(NEEDED | settings)), versions=VERSIONS)


def instructions(dockerfile):
    """Return a Dockerfile's instructions as (name, rest)."""
    lines = [line for line in dockerfile.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.partition(" ")[2]) for line in lines]


@pytest.fixture(params=SITES)
def site(request):
    return SITES[request.param]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["aws", "gcp"])
def test_the_cluster_launcher_takes_its_document(kind, site):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load(rendered(kind, **site))
    validate_config(prepare_config(config))  # Ray's defaults, then Ray's JSON schema
    assert config["available_node_types"]["node"]["max_workers"] == config["max_workers"]


@pytest.mark.parametrize(("kind", "mark"), [("aws", "InstanceMarketOptions"), ("gcp", "scheduling")])
def test_nodes_are_spot_machines_and_the_head_is_not(kind, mark):
    types = yaml.safe_load(rendered(kind))["available_node_types"]
    assert [mark in types[name]["node_config"] for name in ("head", "node")] == [False, True]


@pytest.mark.parametrize("kind", ["kuberay-cluster", "kuberay-job"])
def test_kuberay_knows_every_field(kind, site):
    document = yaml.safe_load(rendered(kind, **site))
    jsonschema.validate(document, schema_of(document["kind"]))


@pytest.mark.parametrize("release", ["1.30", kubernetes_validate.latest_version()])
def test_kubernetes_knows_every_field(release, site):
    cluster = yaml.safe_load(rendered("kuberay-cluster", **site))["spec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    pods = [{"apiVersion": "v1", "kind": "PodTemplate", "template": group["template"]} for group in groups]
    tracker = list(yaml.safe_load_all(rendered("mlflow", **site)))
    for document in pods + tracker:
        kubernetes_validate.validate(document, release, strict=True)
    assert [one["kind"] for one in tracker] == ["PersistentVolumeClaim", "Service", "Deployment"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_autoscaler_reads_the_nodes_that_were_asked_for():
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    document = yaml.safe_load(
        rendered("kuberay-cluster", nodes="1:6", gpus_per_node=2, cpus_per_node=12, memory_gib=40, idle_minutes=3)
    )
    document["metadata"]["namespace"] = "default"  # the API server's default
    config = _derive_autoscaling_config_from_ray_cr(document)
    head, node = (config["available_node_types"][name] for name in ("headgroup", "nodes"))
    assert (head["resources"]["CPU"], config["idle_timeout_minutes"]) == (0, 3)
    assert (node["min_workers"], node["max_workers"]) == (1, 6)
    assert node["resources"] == {"CPU": 12, "GPU": 2, "memory": 40 * 2**30}


def test_a_job_runs_on_the_cluster_that_the_cluster_document_describes():
    job, cluster = (yaml.safe_load(rendered(kind, **EVERYTHING)) for kind in ("kuberay-job", "kuberay-cluster"))
    assert job["spec"]["rayClusterSpec"] == cluster["spec"]


def test_a_job_retries_ends_in_time_and_cleans_up():
    job = yaml.safe_load(rendered("kuberay-job", retries=5, deadline_hours=2, keep_minutes=3))["spec"]
    assert (job["backoffLimit"], job["activeDeadlineSeconds"]) == (5, 7200)
    assert (job["shutdownAfterJobFinishes"], job["ttlSecondsAfterFinished"]) == (True, 180)


@settings(max_examples=12)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip))
def test_any_command_arrives_as_it_was_given(entrypoint):
    assert yaml.safe_load(rendered("kuberay-job", entrypoint=entrypoint))["spec"]["entrypoint"] == entrypoint


def test_the_parts_of_the_tracker_fit_each_other():
    claim, service, deployment = yaml.safe_load_all(rendered("mlflow", name="site"))
    pod = deployment["spec"]["template"]
    assert service["spec"]["selector"] == pod["metadata"]["labels"] == deployment["spec"]["selector"]["matchLabels"]
    assert pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert service["spec"]["ports"][0]["targetPort"] == pod["spec"]["containers"][0]["ports"][0]["name"]


def test_the_tracker_takes_its_database_from_a_secret():
    *_, deployment = yaml.safe_load_all(rendered("mlflow", name="site"))
    variables = {one["name"]: one for one in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    secret = {"secretKeyRef": {"name": "site-mlflow-database", "key": "uri"}}
    assert variables["MLFLOW_BACKEND_STORE_URI"] == {"name": "MLFLOW_BACKEND_STORE_URI", "valueFrom": secret}


def test_nodes_know_the_tracker():
    document = rendered("aws", **EVERYTHING)
    option = yaml.safe_load(document)["docker"]["run_options"][1]
    assert shlex.split(option) == ["-e", f"MLFLOW_TRACKING_URI={EVERYTHING['tracking_uri']}"]


def test_the_image_is_rays_own_with_this_python():
    assert instructions(rendered("dockerfile"))[0] == ("FROM", "rayproject/ray:2.61.3-py312-cpu")


def test_the_image_holds_the_packages_that_are_installed_and_nothing_else():
    copied = [shlex.split(rest)[1:] for name, rest in instructions(rendered("dockerfile")) if name == "COPY"]
    packages = sorted(one.rstrip("*") for one in PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"])
    assert copied == [["pyproject.toml", "./"], *([f"{name}/", f"{name}/"] for name in packages)]


def test_the_image_installs_what_pyproject_pins():
    first, last = [rest for name, rest in instructions(rendered("dockerfile")) if rest.startswith("pip install")]
    (extra,) = re.findall(r'"\.\[(\w+)\]"', first)
    assert extra in PYPROJECT["project"]["optional-dependencies"]
    assert '"mlflow==3.18.2"' in first
    assert "--no-deps --force-reinstall ." in last
    assert not re.search(r"torch|https?:|index|trusted-host", first + last)


def test_the_image_does_not_run_as_root():
    users = [rest for name, rest in instructions(rendered("dockerfile")) if name == "USER"]
    assert re.fullmatch("[1-9][0-9]*", users[-1])


def test_no_template_names_a_version_of_its_own():
    folder = ROOT / "cluster" / "launch" / "templates"
    texts = [path.read_text().replace("0.0.0.0", "") for path in folder.iterdir()]
    assert re.findall(r"\d+\.\d+\.\d+|py3\d+|ython ?3\.", "".join(texts)) == []


def test_templates_are_installed_with_the_package():
    assert PYPROJECT["tool"]["setuptools"]["package-data"]["cluster.launch"] == ["templates/*"]


@each_case(
    ("kind", "settings", "message"),
    [
        ("kuberay", {}, f"unknown manifest kuberay; use one of {', '.join(KINDS)}"),
        ("kuberay-job", {"entrypoint": " "}, "needs a command to run; give it as --entrypoint"),
        ("aws", {"machine_image": None}, "aws needs a machine image; .* as --machine-image ami-"),
        ("gcp", {"machine_image": None}, "as --machine-image projects/PROJECT/global/images/family/FAMILY"),
        ("gcp", {"project": None}, "gcp needs a project; give its id as --project ID"),
        (
            "aws",
            {"gpus_per_node": 4},
            "aws has no default machine type for --gpus-per-node 4 and --cpus-per-node 8; choose",
        ),
        ("gcp", {"cpus_per_node": 64}, "gcp has no default machine type for --gpus-per-node 1 and .*64; choose"),
    ],
)
def test_a_document_that_lacks_something_is_refused(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        rendered(kind, **settings)


def test_a_machine_that_is_named_is_taken():
    document = yaml.safe_load(rendered("aws", gpus_per_node=8, cpus_per_node=96, machine="p5.48xlarge"))
    assert document["available_node_types"]["node"]["node_config"]["InstanceType"] == "p5.48xlarge"
