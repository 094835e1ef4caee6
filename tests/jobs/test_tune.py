import json

import pytest
import yaml

from cluster.runs.record import load_record
from jobs.cli import call

pytestmark = pytest.mark.cluster

SMALL = (
    "--model.backbone squeezenet1_1 --model.weights none --model.image-size-px 64 --model.embedding-size 16 "
    "--training.batch-size 30 --training.num-epochs 2 --num-trials 1 --max-epochs 1"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / "search.yaml").write_text("model.hidden_size: choice([8])\n")
    return home


@pytest.fixture(scope="module")
def command(home, drawn_shards):
    files = ["--home", str(home), "--shards", str(drawn_shards), "--search", str(home / "search.yaml")]
    return [*SMALL.split(), *files, "--name", "s", "--then", "train", "--json"]


@pytest.fixture(scope="module")
def trained(command, session):
    call("tune", command)


def test_the_best_trains_on_what_its_trial_read(home, trained):
    folders = (home / "training" / "s-best-0000", home / "tuning" / "s" / "training" / "trial-0000")
    best, trial = (load_record(folder).identity["data.features"] for folder in folders)
    assert best == trial


def test_the_best_configuration_names_the_run_that_is_trained_already(home, trained, capsys):
    call("train", ["--config", str(home / "tuning" / "s" / "best.yaml"), "--json"])
    assert json.loads(capsys.readouterr().out)["name"] == "s-best-0000"


def test_the_same_command_again_registers_nothing_new(command, trained, capsys):
    call("tune", command)
    assert json.loads(capsys.readouterr().out)["version"] == 1


def test_the_settings_that_are_printed_are_a_configuration(command, tmp_path, capsys):
    with pytest.raises(SystemExit):
        call("tune", [*command, "--print-config"])
    printed = capsys.readouterr().out
    (tmp_path / "search.yaml").write_text(printed)
    with pytest.raises(SystemExit):
        call("tune", ["--config", str(tmp_path / "search.yaml"), "--print-config"])
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(printed)
