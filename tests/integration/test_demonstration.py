"""README's first command, once everything is installed: the full pipeline on synthetic scenes."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.repository import blocks

SET_UP, _ = blocks("bash")
BIN = Path(sys.executable).parent


@pytest.mark.cluster
@pytest.mark.timeout(1800)
def test_the_demonstration_tells_the_truth_about_unseen_scenes(tmp_path):
    command = SET_UP.strip().rpartition("&&")[2].replace('"$VENV/bin/captioning"', f"{BIN / 'captioning'}")
    environment = {name: value for name, value in os.environ.items() if name != "CAPTIONING_HOME"}
    answer = subprocess.run(
        [*shlex.split(command), "--json"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    result = json.loads(answer.stdout)
    page = (tmp_path / "runs" / "demo.html").read_text()
    assert result["true_captions"] >= 0.9
    assert page.count("data:image/jpeg;base64,") == 10
