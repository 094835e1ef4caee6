"""Every command in README files is parsed; those of the main README are run, as is its Python example.

The set-up is run by continuous integration.
"""

import json
import re
import shlex
import shutil
from dataclasses import replace

import pytest
import yaml

from cluster import api
from cluster.config import TrainRun
from cluster.launch.render import KINDS
from cluster.search.space.space import parse_space
from cluster.worker import prometheus
from jobs.cli import JOBS
from jobs.console.parsing import parse
from jobs.train import JOB
from shards.synthetic.scenes import draw_scene, render, write_scenes
from tests.support.command_line import captioning
from tests.support.repository import README, READMES, ROOT, blocks, commands

SET_UP, RUN_TESTS = blocks("bash")
OWN_PICTURES, WALK = blocks("console")
# What makes the walk small enough for a test: synthetic scenes, and a small model trained from scratch.
SMALL = (
    "--model.backbone squeezenet1_1 --model.weights none --model.image-size-px 64 --model.hidden-size 16 "
    "--training.num-epochs 0.5 --training.batch-size 16 --cluster.num-workers 1"
)


@pytest.fixture(scope="module")
def walk_folder(tmp_path_factory):
    """Return a folder where COCO has been downloaded already, as far as ``download`` can tell by looking."""
    folder = tmp_path_factory.mktemp("walk_folder")
    write_scenes(folder / "drawn", num_train=100, num_val=20, seed=2, size_px=64)
    coco = folder / "data" / "coco"
    for split in ("train", "val"):
        annotations = coco / "annotations" / f"captions_{split}2017.json"
        annotations.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "drawn" / "annotations" / f"captions_{split}.json", annotations)
        names = [image["file_name"] for image in json.loads(annotations.read_text())["images"]]
        (coco / f"{split}2017").mkdir()
        for name in names:
            shutil.copy(folder / "drawn" / "images" / name, coco / f"{split}2017" / name)
    render(draw_scene(0, 5)).resize((640, 480)).save(folder / "photo.jpg")
    return folder


@pytest.mark.cluster
@pytest.mark.timeout(1800)
def test_the_walk_from_coco_to_a_caption_works_as_written(walk_folder, session):
    codes = {}
    for command in WALK.strip().splitlines():
        # The official archives are 20 GB away; the plan to fetch them is made all the same.
        added = {"download": "--dry-run", "train": SMALL, "tune": f"{SMALL} --num-trials 1 --max-epochs 1"}.get(
            command.split()[1], ""
        )
        _, *arguments = shlex.split(f"{command} {added}")
        answer = captioning(*arguments, folder=walk_folder, unset=["CAPTIONING_HOME"])
        codes[command] = answer.code, answer.told[-500:] if answer.code else ""
    assert {command: code for command, code in codes.items() if code != (0, "")} == {}
    page = (walk_folder / "captions.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 1


@pytest.fixture
def small_presets(monkeypatch):
    """Let every preset train a small model for few steps, on one worker."""
    small_run = parse(JOB, shlex.split(SMALL)).settings
    for name, (what, run) in api.TRAIN_PRESETS.items():
        small = replace(run, model=small_run.model, training=small_run.training, cluster=small_run.cluster)
        monkeypatch.setitem(api.TRAIN_PRESETS, name, (what, small))


@pytest.mark.cluster
@pytest.mark.parametrize("example", blocks("python"))
def test_the_python_example_captions_a_photo(example, session, small_presets, empty_home, monkeypatch, capsys):
    folder = empty_home.home
    write_scenes(folder / "data" / "coco", num_train=60, num_val=20, seed=2, size_px=64)
    render(draw_scene(0, 5)).resize((640, 480)).save(folder / "photo.jpg")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("CAPTIONING_HOME", raising=False)
    (folder / "runs").mkdir()
    (folder / "mlflow.db").rename(folder / "runs" / "mlflow.db")
    exec(compile(example, "README.md", "exec"), {})
    (caption,) = capsys.readouterr().out.splitlines()
    assert set(caption.split()) <= {*(folder / "data" / "coco-shards" / "vocabulary.txt").read_text().split()}


@pytest.mark.parametrize("command", sorted(set(commands("captioning"))))
def test_a_command_is_parsed(command):
    job, *arguments = shlex.split(command, comments=True)[1:]
    assert job in (*JOBS, "--help")
    lines = [[job, *arguments, "--print-config"]] if arguments else []  # the name alone stands for the job
    if lines and job == "submit":
        start = next(number for number, word in enumerate(arguments) if word in JOBS)
        lines = [["submit", "--print-config", *arguments], [*arguments[start:], "--print-config"]]
    parsed = [captioning(*line, folder=ROOT, CAPTIONING_HOME="/mnt/runs") for line in lines]
    assert [answer.told for answer in parsed if answer.code != 0] == []


def test_examples_keep_data_apart_from_the_package_of_that_name():
    documentation = [*READMES.values(), *((ROOT / "jobs" / f"{job}.py").read_text() for job in JOBS)]
    examples = [line for text in documentation for line in re.findall(r"captioning [a-z].*|python tests/.*", text)]
    assert [line for line in examples if re.search(r"[ /]shards[ '`]", f"{line} ")] == []


def test_pictures_of_your_own_become_a_shard_set(walk_folder):
    (table,) = blocks("csv")
    (walk_folder / "photos").mkdir()
    (walk_folder / "photos" / "captions.csv").write_text(table)
    for number, name in enumerate({line.split(",")[0] for line in table.splitlines()[1:]}):
        render(draw_scene(1, number)).resize((640, 480)).save(walk_folder / "photos" / name)
    job, *arguments = shlex.split(OWN_PICTURES.splitlines()[0])[1:]
    small = ("--minimum-word-count", 1, "--num-workers", 0)
    converted = captioning(job, *arguments, *small, folder=walk_folder)
    assert (converted.code, "is read as table: images 2 train" in converted.told) == (0, True), converted.told


def test_both_commands_set_up_a_fresh_machine():
    fresh = 'python3 -m venv "${VENV:=.venv}" && "$VENV/bin/pip" install --quiet --editable '
    assert [block.startswith(fresh) for block in (SET_UP, RUN_TESTS)] == [True, True]


def test_continuous_integration_runs_the_test_command():
    script = (ROOT / ".ci" / "run").read_text()
    assert all(word in script for word in ("README.md", "pytest"))


def test_the_main_readme_is_short():
    assert len(README.splitlines()) < 200


def test_pictures_are_small():
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert [len(pictures), *(name for name in pictures if (ROOT / name).stat().st_size > 150_000)] == [2]


@pytest.mark.parametrize("name", READMES)
def test_files_that_a_readme_names_exist(name):
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", READMES[name])
    scripts = re.findall(r"`(?:python )?(tests/\S+\.py)", READMES[name])
    paths = [*((ROOT / name).parent / link for link in links), *(ROOT / script for script in scripts)]
    assert [path for path in paths if not path.is_file()] == []


@pytest.mark.parametrize("package", ["captioning", "cluster", "shards"])
def test_every_package_is_in_the_table_of_its_parent(package):
    named = re.findall(r"^\| `(\w+)/`", READMES[f"{package}/README.md"], re.MULTILINE)
    assert sorted(named) == sorted(path.parent.name for path in (ROOT / package).glob("*/__init__.py"))


def test_every_metric_in_the_table_is_exported_and_none_is_missing():
    exported = {*prometheus.GAUGES, f"{prometheus.BAD_SAMPLES}_total"}
    assert set(re.findall(r"^\| `ray_(\w+)`", READMES["cluster/worker/README.md"], re.MULTILINE)) == exported


def test_every_kind_of_manifest_is_in_the_table():
    named = re.findall(r"^\| (`.+?) \|", READMES["cluster/launch/README.md"], re.MULTILINE)
    assert sorted(re.findall(r"`([^`]+)`", " ".join(named))) == sorted(KINDS)


def test_the_search_file_shown_is_understood():
    (shown,) = blocks("yaml")
    space = parse_space(yaml.safe_load(shown), TrainRun())
    assert [parameter.kind for parameter in space.parameters] == ["loguniform", "choice", "uniform"]
