from dataclasses import replace
from pathlib import Path

import pytest

from captioning.generation.config import GenerationConfig
from cluster.api.arguments import as_location, search_settings, storage_or_default, with_locations
from cluster.config import StorageConfig, TrainRun


def test_a_folder_is_a_path_from_the_root_and_a_url_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (as_location("shards"), as_location("s3://bucket/shards")) == (tmp_path / "shards", "s3://bucket/shards")


def test_the_locations_of_a_run_may_be_text():
    run = TrainRun(shards="shards", features="s3://bucket/features")
    assert with_locations(run) == replace(run, shards=Path("shards"))


def test_storage_has_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAPTIONING_HOME", "home")
    found = [storage_or_default(given).home for given in (StorageConfig(home=Path("other")), None)]
    assert found == [tmp_path / "other", tmp_path / "home"]


def test_a_search_is_given_by_its_beam_size_or_whole():
    sampled = GenerationConfig(temperature=1.0, num_samples=5)
    assert (search_settings(2, None), search_settings(3, sampled)) == (GenerationConfig(beam_size=2), sampled)


def test_two_beam_sizes_are_refused():
    with pytest.raises(ValueError, match="beam_size 5 is given beside generation, whose beam size is 4; give one"):
        search_settings(5, GenerationConfig(beam_size=4))
