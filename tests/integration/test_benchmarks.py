"""The scripts that made the figures in README files, on small inputs, to show that they run."""

import os
import shlex
import subprocess
import sys

import pytest

from tests.support.repository import ROOT, commands

COMMANDS = [command.partition(" ")[2] for command in commands("python")]
LITTLE = {
    "tests/benchmarks/bookkeeping.py": "--num-trials 1 --max-epochs 1 --num-images 60 --nested 0",
    "tests/benchmarks/features.py": "--shards {shards} --backbones squeezenet1_1 --weights none --image-size 64 "
    "--batch-size 16 --epochs 1 --live-steps 1",
    "tests/benchmarks/overheads.py": "--steps 4 --checkpoint-every 2 --batch-size 4",
    "tests/benchmarks/search.py": "--num-trials 1 --max-epochs 2 --seeds 0 --shards {shards} -- "
    "--model.backbone squeezenet1_1 --model.weights none --model.image-size-px 64",
    "tests/benchmarks/verification.py": "--gib 0.01 --mib-per-shard 1",
    "tests/faults/chaos.py": "--help",
}


@pytest.mark.cluster
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_a_figure_runs(command, drawn_shards):
    script, *_ = shlex.split(command)
    arguments = [*shlex.split(command.partition(" -- ")[0]), *shlex.split(LITTLE[script].format(shards=drawn_shards))]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # as a user has it
    answer = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr[-2000:]


def test_every_figure_of_a_script_names_its_command():
    assert {command.split()[0] for command in COMMANDS} == set(LITTLE)
