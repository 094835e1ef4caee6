import operator
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from captioning.generation.config import GenerationConfig
from cluster.config import HomeConfig
from cluster.errors import Mistakes
from cluster.presets import TRAIN_PRESETS
from jobs.caption import JOB as CAPTION
from jobs.console.parsing import parse
from jobs.evaluate import JOB as EVALUATE
from jobs.train import JOB
from tests.support.case_table import each_case


def run_of(*arguments):
    return parse(JOB, arguments).settings


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_flags_override_the_file_and_the_file_the_preset(file):
    path = file("training: {batch_size: 8, seed: 5}\n")
    run = run_of("smoke", "--config", path, "--training.batch-size", "16")
    assert (run.training.batch_size, run.training.seed, run.model.backbone) == (16, 5, "alexnet")


def test_flags_override_the_file_wherever_they_stand(file):
    path = file("training: {batch_size: 8}\n")
    assert run_of("--training.batch-size", "16", f"--config={path}").training.batch_size == 16


def test_the_printed_configuration_is_a_valid_configuration(file, capsys):
    with pytest.raises(SystemExit, match="0"):
        parse(JOB, ["smoke", "--name", "x", "--shards", "s", "--optimizer.learning-rate", "0.02", "--print-config"])
    printed = capsys.readouterr().out
    expected = run_of("smoke", "--name", "x", "--shards", "s", "--optimizer.learning-rate", "0.02")
    assert run_of("--config", file(printed)) == expected


@pytest.mark.parametrize("preset", TRAIN_PRESETS)
def test_every_preset_prints_as_yaml(preset, capsys):
    with pytest.raises(SystemExit, match="0"):
        parse(JOB, [preset, "--print-config"])
    assert yaml.safe_load(capsys.readouterr().out)["name"] == TRAIN_PRESETS[preset][1].name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {batchsize: 8}", r"unknown key training\.batchsize; did you mean training\.batch_size\?"),
        ("trainin: {}", r"unknown key trainin; did you mean training\?"),
        ("zzz: 1", "unknown key zzz; use one of name, shards"),
        ("training: {batch_size: many}", r"training\.batch_size cannot be 'many' \(Input should be a valid integer"),
        ("training: {precision: fp8}", r"training\.precision cannot be 'fp8' \(Input should be 'fp32' or 'bf16'"),
        ("training: {batch_size: true}", r"training\.batch_size cannot be True \(Input should be a valid integer"),
        ("training: {batch_size: '16'}", r"training\.batch_size cannot be '16' \(Input should be a valid integer"),
        ("training: {batch_size: 16.0}", r"training\.batch_size cannot be 16\.0 \(Input should be a valid integer"),
        ("training: {flip: 1}", r"training\.flip cannot be 1 \(Input should be a valid boolean"),
        ("training: {flip: 'yes'}", r"training\.flip cannot be 'yes' \(Input should be a valid boolean"),
        ("optimizer: {learning_rate: '0.1'}", r"learning_rate cannot be '0\.1' \(Input should be a valid number"),
        ("optimizer: {learning_rate: true}", r"learning_rate cannot be True \(Input should be a valid number"),
        ("cluster: {resources_per_worker: {a: true}}", r"resources_per_worker cannot be {'a': True} \(Input should be"),
        ("shards: 7", r"shards cannot be 7 \(Value error, it should be a folder or a URL"),
        ("name: 7", r"name cannot be 7 \(Input should be a valid string"),
        ("name: no", r"name cannot be False \(Input should be a valid string"),
        ("name: 2026-01-02", r"name cannot be datetime\.date\(2026, 1, 2\); write a text in quotes"),
        ("storage: {home: 3}", r"storage\.home cannot be 3 \(Input should be a valid string"),
        ("training: 3", "training is a section, not a value such as 3; indent"),
        ("training: {batch_size: 0}", "batch_size 0 is not positive"),
        ("model: {dropout: 1.0}", r"dropout 1\.0 is not a fraction"),
        ("- a", "contains no settings"),
        ("", "contains no settings"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_a_faulty_file_is_named_with_its_fault(file, text, message):
    with pytest.raises(ValueError, match=message):
        run_of("--config", file(text))


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("optimizer: {learning_rate: 1e-3}", "optimizer.learning_rate", 0.001),
        ("optimizer: {learning_rate: 1}", "optimizer.learning_rate", 1.0),
        ("training: {num_epochs: 2.5}", "training.num_epochs", 2.5),
        ("training: {flip: off}", "training.flip", False),
        ("cluster: {num_workers: 1:4}", "cluster.num_workers", "1:4"),
        ("cluster: {num_workers: 3}", "cluster.num_workers", 3),
        ("cluster: {resources_per_worker: {a: 1, b: 1e-2}}", "cluster.resources_per_worker", {"a": 1.0, "b": 0.01}),
        ("name: 1e3", "name", "1e3"),
    ],
)
def test_a_value_of_its_type_is_taken_as_it_looks(file, text, name, value):
    run = run_of("--config", file(text))
    assert operator.attrgetter(name)(run) == value


@each_case(
    "text",
    ["beam_size: 6\ngroups: 2\n", "generation: {beam_size: 6}\ngroups: 2\n", "groups: 2\ngeneration: {beam_size: 6}\n"],
)
def test_a_setting_whose_flag_has_no_prefix_needs_no_section_in_a_file(file, text):
    arguments = ["m", "--shards", "s", "--config", file(text), "--min-words", "3"]
    assert parse(EVALUATE, arguments).settings.generation == GenerationConfig(beam_size=6, groups=2, min_words=3)


def test_a_wrong_type_in_such_a_setting_is_named(file):
    with pytest.raises(ValueError, match=r"run\.yaml: beam_size cannot be 'many'"):
        parse(EVALUATE, ["m", "--shards", "s", "--config", file("beam_size: many\n")])


def test_a_tilde_that_no_shell_expanded_is_the_users_home(file, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w.pth").touch()
    run = run_of("--config", file("shards: ~/s\nstorage: {home: ~/r}\n"), "--features=~/f", "--model.weights=~/w.pth")
    assert (run.shards, run.features, run.storage.home, run.model.weights) == (
        tmp_path / "s", tmp_path / "f", tmp_path / "r", str(tmp_path / "w.pth"),
    )  # fmt: skip
    assert run_of("--config=~/run.yaml", "--home=~/h").storage.home == tmp_path / "h"


@pytest.mark.parametrize(
    ("job", "arguments"),
    [
        (EVALUATE, ["m", "--shards", ""]),
        (EVALUATE, ["m", "--shards", "s", "--out", ""]),
        (EVALUATE, ["m", "--shards", "s", "--home="]),
        (CAPTION, ["", "--model", "m"]),
    ],
)
def test_an_empty_path_is_not_taken_for_the_current_folder(job, arguments):
    with pytest.raises(Mistakes, match=r"^Error parsing .*: an empty text, as of an unset variable, "):
        parse(job, arguments)


def test_an_empty_path_in_a_file_is_named_and_an_empty_variable_is_as_none(file, monkeypatch):
    with pytest.raises(Mistakes, match=r"storage\.home is empty; write \./ for the current folder\n.*an empty text"):
        run_of("--config", file("storage: {home: ''}\nshards: ''\n"))
    monkeypatch.setenv("CAPTIONING_HOME", "")
    assert HomeConfig().home == Path("runs")


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"--config nowhere\.yaml does not exist"):
        run_of("--config", "nowhere.yaml")


def test_an_unknown_preset_is_named():
    with pytest.raises(ValueError, match="there is no preset smok; use one of default, smoke"):
        run_of("smok")


def test_an_unknown_flag_is_named():
    with pytest.raises(ValueError, match=r"--training\.batchsize, 3; did you mean --training\.batch-size\?"):
        run_of("--training.batchsize", "3")


def test_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pth").touch()
    run = run_of("--shards", "s", "--home", "h", "--model.weights", "w.pth")
    assert (run.shards, run.storage.home, run.model.weights) == (
        tmp_path / "s",
        tmp_path / "h",
        str(tmp_path / "w.pth"),
    )


def test_urls_stay_and_file_urls_are_paths(file, tmp_path):
    run = run_of("--shards", "s3://bucket/a b", "--features", (tmp_path / "a b").as_uri())
    assert (run.shards, run.features) == ("s3://bucket/a b", tmp_path / "a b")


def test_locations_in_a_file_are_read_as_flags_are(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = run_of("--config", file("{shards: s, features: 'gs://bucket/f'}"))
    assert (run.shards, run.features) == (tmp_path / "s", "gs://bucket/f")


def test_the_home_folder_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPTIONING_HOME", str(tmp_path))
    code = "from cluster.config import TrainRun; print(TrainRun().storage.home)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == str(tmp_path)
