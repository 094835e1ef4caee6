import subprocess

import pytest

import cluster.git
from cluster.git import checkout_around, git_state, listed_files


@pytest.fixture
def checkout(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").write_text("one")
    git("add", "jobs")
    git("commit", "-m", "first")
    return tmp_path


def test_a_clean_checkout_is_recorded(checkout):
    state = git_state(checkout)
    assert (len(state["mlflow.source.git.commit"]), state["git.dirty"]) == (40, "false")


def test_a_changed_checkout_is_recorded_as_dirty(checkout):
    (checkout / "jobs" / "__init__.py").write_text("two")
    assert git_state(checkout)["git.dirty"] == "true"


def test_outside_a_checkout_the_commit_is_unknown(tmp_path):
    assert git_state(tmp_path) == {"mlflow.source.git.commit": "unknown", "git.dirty": "unknown"}


def test_a_submitted_job_has_the_commit_that_it_was_submitted_with(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPTIONING_GIT_COMMIT", "c" * 40)
    monkeypatch.setenv("CAPTIONING_GIT_DIRTY", "true")
    assert git_state(tmp_path) == {"mlflow.source.git.commit": "c" * 40, "git.dirty": "true"}


def test_the_checkout_of_the_running_packages_is_recorded_and_not_that_of_the_current_folder(checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    commit = git_state()["mlflow.source.git.commit"]
    monkeypatch.setattr(cluster.git, "__file__", f"{checkout}/cluster/git.py")
    assert git_state()["mlflow.source.git.commit"] != commit


def test_packages_inside_a_checkout_of_something_else_have_no_commit(checkout, monkeypatch):
    installed = checkout / "venv" / "site-packages"
    (installed / "jobs").mkdir(parents=True)
    (installed / "jobs" / "__init__.py").touch()
    monkeypatch.setattr(cluster.git, "__file__", f"{installed}/cluster/git.py")
    assert git_state() == {"mlflow.source.git.commit": "unknown", "git.dirty": "unknown"}


def test_a_git_hook_of_another_repository_changes_nothing(checkout, tmp_path_factory, monkeypatch):
    before = git_state(checkout)
    other = tmp_path_factory.mktemp("other")
    subprocess.run(["git", "init", other], check=True, capture_output=True)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert git_state(checkout) == before


def test_a_checkout_without_a_commit_has_none(tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").touch()
    for arguments in (("init",), ("add", "jobs")):
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True, capture_output=True)
    assert git_state(tmp_path)["mlflow.source.git.commit"] == "unknown"


def test_a_checkout_is_found_from_inside(checkout, tmp_path_factory):
    (checkout / "a").mkdir()
    outside = tmp_path_factory.mktemp("outside")
    assert (checkout_around(checkout / "a"), checkout_around(outside)) == (checkout, None)


def test_the_files_of_a_checkout_are_those_git_tracks(checkout):
    (checkout / "new").touch()
    assert (listed_files(checkout), listed_files(checkout, "--others")) == (["jobs/__init__.py"], ["new"])
