"""The Python example in README is run as written, on few synthetic scenes and with a small model."""

from dataclasses import replace

import pytest

from cluster import api
from shards.synthetic.scenes import draw_scene, render, write_scenes
from tests.support.repository import blocks

SMALL = api.ModelConfig(
    backbone="squeezenet1_1", weights="none", image_size_px=64, embedding_size=16, hidden_size=16, dropout=0.0
)


@pytest.fixture
def small_presets(monkeypatch):
    """Let every preset train a small model for few steps, on one worker."""
    training = api.TrainingConfig(num_epochs=0.5, batch_size=16)
    for name, (what, run) in api.TRAIN_PRESETS.items():
        small = replace(run, model=SMALL, training=training, cluster=api.ClusterConfig(num_workers=1))
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
