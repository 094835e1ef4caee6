"""README's first command, once everything is installed: the full pipeline on synthetic scenes."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.html import Page
from tests.support.repository import ROOT, blocks

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
    assert result["true_captions"] >= 0.9
    page = Page(tmp_path / "runs" / "demo.html")
    assert (len(page.all("img")), "200 pictures" in page.texts) == (200, True)
    assert f"{round(200 * result['true_captions'])} of 200" in page.texts
    # The command of README and of the terminal, which captions one of the pictures.
    [command] = [text for text in page.texts if text.startswith("captioning caption ")]
    assert command in answer.stderr
    assert command in (ROOT / "README.md").read_text()
    caption = subprocess.run(
        [BIN / "captioning", *shlex.split(command)[1:]],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "\t" in caption.stdout
    run = Page(tmp_path / "runs" / "training" / "demo" / "run.html")
    assert {"Learning to caption", "Scores of each picture"} <= set(run.texts)
    assert (tmp_path / "runs" / "training" / "demo" / "versions" / "demo-1" / "model.html").is_file()
