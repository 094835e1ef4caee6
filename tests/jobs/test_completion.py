"""``captioning completion``: what a shell offers after it has read the script."""

import subprocess

import pytest

from jobs.cli import JOBS

TRY = """
source {script}
try() {{
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    _tyro_captioning
    echo "${{COMPREPLY[@]}}"
}}
try captioning ""
try captioning train --optimizer.l
try captioning evaluate --sp
"""


def test_bash_completes_jobs_and_the_flags_of_each(captioning, tmp_path):
    script = tmp_path / "completion.bash"
    script.write_text(captioning("completion", "bash")[1])
    run = subprocess.run(["bash", "-c", TRY.format(script=script)], capture_output=True, text=True, check=True)
    jobs, learning_rate, split = run.stdout.splitlines()
    assert (set(JOBS) - set(jobs.split()), learning_rate, split) == (set(), "--optimizer.learning-rate", "--split")


@pytest.mark.parametrize(("shell", "beginning"), [("zsh", "#compdef captioning"), ("fish", "# AUTOMATICALLY")])
def test_each_shell_has_a_script_of_its_own(captioning, shell, beginning):
    _, script, _ = captioning("completion", shell)
    assert (script.startswith(beginning), "register" in script) == (True, True)


def test_another_shell_is_bad_input(captioning):
    code, _, complaint = captioning("completion", "tcsh")
    assert (code, complaint.startswith("error: invalid choice 'tcsh' for argument 'shell'")) == (2, True), complaint
