import io

import pytest

from captioning.config import OptimizerConfig
from cluster.config import TrainRun
from cluster.errors import Mistakes
from jobs.cli import find_job
from jobs.console.mistakes import out_of_bounds, rejection, sections, unchecked
from jobs.console.parsing import parse
from jobs.train import JOB

BOX = """\
╭─ Unrecognized options ───────────────────────────────────────────────────────╮
│ Unrecognized options: --training.batchsize, 3                                │
│ ──────────────────────────────────────────────────────────────────────────── │
│ Arguments similar to --training.batchsize:                                   │
│     --training.batch-size INT                                                │
│         Images per step, over all workers. (default: 64)                     │
│ ──────────────────────────────────────────────────────────────────────────── │
│ For full helptext, run captioning train --help                               │
╰──────────────────────────────────────────────────────────────────────────────╯
"""


def mistakes_of(*arguments):
    with pytest.raises(Mistakes) as raised:
        parse(JOB, arguments)
    return [line.split(" is ")[0].split(";")[0] for line in raised.value.lines]


def test_all_mistakes_of_flags_are_named_with_their_section():
    flags = ["--optimizer.learning-rate", "0", "--optimizer.weight-decay", "-1", "--cluster.num-workers", "4:1"]
    assert mistakes_of("smoke", *flags, "--cache-gib", "0", "--name", "a/b") == [
        "optimizer.learning_rate 0.0",
        "optimizer.weight_decay -1.0",
        "cluster.num_workers 4:1",
        "storage.cache_gib 0.0",
        "name 'a/b' cannot be a folder's name",
    ]


def test_mistakes_of_the_file_and_of_flags_are_named_together(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("optimizer: {warmup: 3}\ntraining: {seed: x, batch_size: -1}\n")
    assert mistakes_of("--config", f"{file}", "--model.hidden-size", "0") == [
        f"--config {file}: unknown key optimizer.warmup",
        f"--config {file}: training.seed cannot be 'x' (Input should be a valid integer)",
        "model.hidden_size 0",
        "training.batch_size -1",
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (
            ("--model.decoder", "gru"),
            "invalid choice 'gru' for argument '--model.decoder'. Expected one of ('lstm', 'attend', 'transformer')",
        ),
        (
            ("--cluster.cpus-per-worker", "nan"),
            "Error parsing --cluster.cpus-per-worker: invalid literal for int() with base 10: 'nan'",
        ),
        (("--model.decode", "gru"), "Unrecognized options: --model.decode, gru"),
    ],
)
def test_a_flag_that_tyro_rejects_is_one_line_in_any_encoding(monkeypatch, encoding, flags, expected):
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    assert mistakes_of(*flags) == [expected]


def test_a_flag_that_tyro_rejects_is_one_line_beside_the_mistakes_of_the_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("optimizer: {warmup: 3}\n")
    assert mistakes_of("--config", f"{file}", "--model.decoder", "gru") == [
        f"--config {file}: unknown key optimizer.warmup",
        "invalid choice 'gru' for argument '--model.decoder'. Expected one of ('lstm', 'attend', 'transformer')",
    ]


def test_a_missing_file_of_weights_is_named_when_the_command_line_is_read(tmp_path):
    found = mistakes_of("--model.weights", f"{tmp_path}/none.pth")
    assert found == [f"model.weights: weights file {tmp_path}/none.pth does not exist"]


def test_settings_are_checked_again_after_parsing():
    with unchecked(TrainRun()):
        wrong = OptimizerConfig(learning_rate=0)
    assert out_of_bounds(wrong) == ["learning_rate 0 is not positive and finite; use a number above 0"]
    with pytest.raises(ValueError, match="learning_rate 0 is not positive"):
        OptimizerConfig(learning_rate=0)


def test_sections_end_with_the_whole():
    names = [name for name, _ in sections(TrainRun())]
    assert names == ["model", "optimizer", "training", "validation", "cluster", "storage", "tracking", ""]


def test_a_box_becomes_one_line():
    assert rejection(BOX) == "Unrecognized options: --training.batchsize, 3; did you mean --training.batch-size?"


@pytest.mark.parametrize(
    ("job", "arguments", "name"),
    [
        ("train", ["--tracking.uri", "URL"], "tracking.uri"),
        ("train", ["--shards", "URL"], "shards"),
        ("train", ["--features", "URL"], "features"),
        ("train", ["--checkpoints", "URL"], "storage.checkpoints"),
        ("train", ["--cluster.address", "URL"], "cluster.address"),
        ("train", ["--model.weights", "URL"], "model.weights"),
        ("download", ["coco2017", "coco", "--base-url", "URL"], "base_url"),
        ("caption", ["URL", "--model", "m"], "inputs"),
        ("evaluate", ["URL", "--shards", "s"], "model"),
        ("launch", ["mlflow", "--entrypoint", "train --shards URL"], "entrypoint"),
        ("submit", ["--", "train", "--shards", "URL"], "arguments shards"),
    ],
)
@pytest.mark.parametrize("form", ["http://me:secret@host/a", "http://host/a?x=1&Token=secret"])
def test_credentials_in_any_setting_are_refused_and_not_repeated(job, arguments, name, form):
    with pytest.raises(Mistakes) as raised:
        parse(find_job(job), [one.replace("URL", form) for one in arguments])
    found = [line for line in raised.value.lines if "contains credentials" in line]
    assert [line.split(" ")[0] for line in found] == name.split()
    assert "secret" not in "".join(raised.value.lines)


@pytest.mark.parametrize(
    ("flags", "mistake"),
    [
        ("--training.num-epochs 1e308", "training.num_epochs 1e+308 is too large; use at most 1000000"),
        ("--training.batch-size 99999999", "training.batch_size 99999999 is too large; use at most 1000000"),
        ("--training.seed 99999999999999999999", "training.seed 99999999999999999999 is not finite or too large"),
        ("--optimizer.learning-rate 1e300", "optimizer.learning_rate 1e+300 is not finite or too large"),
        ("--validation.beam-size 1000000000", "validation.beam_size 1000000000 is out of range; use 1 to 1000"),
        ("--cluster.num-workers 1:99999999", "cluster.num_workers 1:99999999 is too large; use at most 100000"),
        ("--cluster.hang-seconds 1e12", "cluster.hang_seconds 1000000000000.0 is too large"),
        (
            "--cluster.resources-per-worker a nan",
            "cluster.resources_per_worker {'a': nan} reserves nothing",
        ),
        ("--cluster.resources-per-worker a 1e300", "cluster.resources_per_worker 1e+300 is not finite or too large"),
        ("--cache-gib nan", "storage.cache_gib nan is too small for a shard, or not finite"),
        (f"--name {'n' * 300}", "name 'nnnnnn"),
        (f"--tracking.experiment {'e' * 300}", "tracking.experiment has a name of 300 characters; use 1 to 200"),
    ],
)
def test_numbers_and_names_beyond_any_use_are_named_in_one_short_line(flags, mistake):
    with pytest.raises(Mistakes) as raised:
        parse(JOB, ["--shards", "s", "--training.batch-size", "1000000", *flags.split()])
    line, *_ = raised.value.lines
    assert (line.startswith(mistake), len(line) < 220) == (True, True), line
