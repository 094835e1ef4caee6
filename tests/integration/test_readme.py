"""Every command in README is run: the set-up by continuous integration, everything else here."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cluster.config import TrainRun
from cluster.search.space.space import parse_space
from cluster.worker import prometheus
from shards.synthetic.scenes import draw_scene, render, write_scenes
from tests.support.command_line import captioning
from tests.support.repository import README, ROOT

SET_UP, RUN_TESTS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
(WALK,) = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
BIN = Path(sys.executable).parent
# What makes the walk small enough for a test: it is on drawn scenes, and the model is small and from scratch.
SMALL = (
    "--model.backbone squeezenet1_1 --model.weights none --model.image-size-px 64 --model.hidden-size 16 "
    "--training.num-epochs 0.5 --training.batch-size 16 --cluster.num-workers 1"
)


@pytest.fixture(scope="module")
def walk_folder(tmp_path_factory):
    """Return a folder where COCO has been downloaded already, as far as ``download`` can tell by looking."""
    folder = tmp_path_factory.mktemp("walk_folder")
    write_scenes(folder / "drawn", num_train=100, num_val=20, seed=2, size_px=64)
    for split in ("train", "val"):
        annotations = folder / "coco" / "annotations" / f"captions_{split}2017.json"
        annotations.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "drawn" / "annotations" / f"captions_{split}.json", annotations)
        names = [image["file_name"] for image in json.loads(annotations.read_text())["images"]]
        (folder / "coco" / f"{split}2017").mkdir()
        for name in names:
            shutil.copy(folder / "drawn" / "images" / name, folder / "coco" / f"{split}2017" / name)
    render(draw_scene(0, 5)).resize((640, 480)).save(folder / "photo.jpg")
    return folder


def run(command, folder):
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    environment.pop("CAPTIONING_HOME", None)
    return subprocess.run(
        shlex.split(command), cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.cluster
@pytest.mark.timeout(1800)
def test_the_walk_from_coco_to_a_caption_works_as_written(walk_folder):
    codes = {}
    for command in WALK.strip().splitlines():
        # The official archives are 20 GB away; the plan to fetch them is made all the same.
        added = {"download": "--dry-run", "train": SMALL, "tune": f"{SMALL} --num-trials 1 --max-epochs 1"}.get(
            command.split()[1], ""
        )
        answer = run(f"{command} {added}", walk_folder)
        codes[command] = answer.returncode, answer.stderr[-500:] if answer.returncode else ""
    assert {command: code for command, code in codes.items() if code != (0, "")} == {}
    page = (walk_folder / "captions.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 1


@pytest.mark.parametrize("command", re.findall(r"`(captioning (?!JOB)[^`]*--[^`]*)`", README))
def test_a_command_elsewhere_is_understood(command, walk_folder):
    assert (
        captioning(*shlex.split(command)[1:], "--print-config", folder=walk_folder, unset=["CAPTIONING_HOME"]).code == 0
    )


def test_both_commands_set_up_a_fresh_machine():
    fresh = 'python3 -m venv "${VENV:=.venv}" && "$VENV/bin/pip" install --quiet --editable '
    assert [block.startswith(fresh) for block in (SET_UP, RUN_TESTS)] == [True, True]


def test_continuous_integration_runs_the_test_command():
    script = (ROOT / ".ci" / "run").read_text()
    assert all(word in script for word in ("README.md", "pytest"))


def test_every_package_stands_in_the_tree():
    tree = README.partition("## What is where")[2].partition("## Measured")[0]
    named = set(re.findall(r"\b([a-z_]+)/", tree))
    packages = {
        path.parent for one in ("captioning", "cluster", "jobs", "shards") for path in (ROOT / one).rglob("*.py")
    }
    top = {path.relative_to(ROOT).parts[-1] for path in packages if len(path.relative_to(ROOT).parts) <= 2}
    assert named == top | {"tests", "integration", "faults", "benchmarks"}


def test_every_metric_in_the_table_is_exported_and_none_is_missing():
    exported = {*prometheus.GAUGES, f"{prometheus.BAD_SAMPLES}_total"}
    assert set(re.findall(r"^\| `ray_(\w+)`", README, re.MULTILINE)) == exported


def test_the_search_file_shown_is_understood():
    (shown,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    space = parse_space(yaml.safe_load(shown), TrainRun())
    assert [parameter.kind for parameter in space.parameters] == ["loguniform", "choice", "uniform"]
