import shutil
import subprocess
import zipfile

import pytest

import cluster.git
from cluster.submission.archive import PACKAGES, plan_archive, write_archive


@pytest.fixture
def code(tmp_path):
    """Return a folder with the packages that is not a checkout."""
    folder = tmp_path / "code"
    for name in PACKAGES:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").touch()
    return folder


@pytest.fixture
def checkout(code):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", code, *identity, *arguments], check=True, capture_output=True)

    (code / "README.md").touch()
    (code / "jobs" / "old.py").write_text("one")
    (code / "jobs" / "gone.py").touch()
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    return code


def names(archive):
    return [name for name, _ in archive.files if not name.endswith("__init__.py")]


def test_the_packages_of_a_checkout_travel_as_they_are_now(checkout, tmp_path):
    (checkout / "jobs" / "old.py").write_text("two")
    (checkout / "jobs" / "gone.py").unlink()
    archive = plan_archive(checkout)
    write_archive(archive, tmp_path / "code.zip")
    sent = zipfile.ZipFile(tmp_path / "code.zip").read("jobs/old.py")
    assert (names(archive), sent, archive.is_dirty, len(archive.commit)) == (["jobs/old.py"], b"two", "true", 40)


def test_links_out_of_the_folder_are_not_followed(checkout, code, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (checkout / "jobs" / "inner.py").symlink_to("old.py")
    (checkout / "jobs" / "outer.py").symlink_to(tmp_path / "secret")
    subprocess.run(["git", "-C", checkout, "add", "."], check=True)
    for folder in (checkout, code):
        archive = plan_archive(folder)
        assert names(archive)[1:] == ["jobs/inner.py", "jobs/old.py"]
        assert "1 file that links out of the folder: jobs/outer.py" in archive.left_out
        shutil.rmtree(checkout / ".git", ignore_errors=True)  # the same folder, not a checkout


def test_what_is_left_out_is_named(checkout):
    (checkout / "jobs" / "new.py").touch()
    assert plan_archive(checkout).left_out == (
        "1 file outside captioning, cluster, jobs, shards",
        "1 file that git does not track: jobs/new.py",
    )


def test_without_a_checkout_all_but_caches_travels(code):
    (code / "jobs" / "new.py").touch()
    (code / "jobs" / "__pycache__").mkdir()
    (code / "jobs" / "__pycache__" / "new.pyc").touch()
    archive = plan_archive(code)
    left_out = ("1 file in caches or hidden",)
    assert (names(archive), archive.left_out, archive.commit) == (["jobs/new.py"], left_out, "unknown")


def test_the_checkout_around_the_current_folder_is_meant(checkout, monkeypatch):
    monkeypatch.chdir(checkout / "jobs")
    assert plan_archive().folder == checkout


def test_code_that_its_checkout_does_not_track_travels_as_without_one(checkout):
    inner = checkout / "environment"
    for name in PACKAGES:
        (inner / name).mkdir(parents=True)
        (inner / name / "__init__.py").touch()
    archive = plan_archive(inner)
    assert (len(archive.files), archive.commit) == (4, "unknown")


def test_the_same_files_give_the_same_archive(code, tmp_path):
    for name in ("a.zip", "b.zip"):
        write_archive(plan_archive(code), tmp_path / name)
        (code / "jobs" / "__init__.py").touch()
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_small_files_that_a_job_names_travel_with_it(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "search.yaml").touch()
    assert names(plan_archive(code, inputs=[(tmp_path / "search.yaml").relative_to(tmp_path)])) == ["search.yaml"]


def test_a_file_of_the_job_does_not_replace_one_of_the_code(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").touch()
    inputs = [(tmp_path / "jobs" / "__init__.py").relative_to(tmp_path)]
    with pytest.raises(ValueError, match=r"input jobs/__init__.py has the same name as a file of the code; rename it"):
        plan_archive(code, inputs=inputs)


def test_an_installed_package_travels_from_where_it_is_installed(code, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.git, "__file__", f"{code}/cluster/git.py")
    monkeypatch.chdir(tmp_path)
    planned = plan_archive()
    assert (planned.folder, len(planned.files), planned.commit) == (code, len(PACKAGES), "unknown")


def test_a_folder_without_the_code_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no code to run: it lacks captioning, .*; use --working-dir"):
        plan_archive(tmp_path)


def test_an_archive_that_ray_does_not_take_is_refused_with_its_largest_files(code, tmp_path):
    (code / "jobs" / "large.bin").write_bytes(bytes(range(256)) * 100)
    with pytest.raises(
        ValueError, match=r"MiB zipped, and Ray accepts less than 0.0001 MiB; .*: jobs/large.bin 0.0 MiB"
    ):
        write_archive(plan_archive(code), tmp_path / "code.zip", limit_mib=1e-4)
