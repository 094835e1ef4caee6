"""Where files stand: few in a folder, a word on each package, and each module's tests at its mirrored path."""

from collections import Counter

from tests.support.repository import ROOT
from tests.support.source_tree import PACKAGES, sources

MOST_FILES = 15
MOST_LINES = 350
AS_MANY_AS_JOBS = {"jobs", "tests/jobs", "tests/support"}
# Product modules that are tested through those who use them, and in which files.
TESTED_ELSEWHERE = {
    "captioning/bounds.py": ("captioning/test_config",),
    "captioning/model/decoders/attention.py": (
        "captioning/model/decoders/test_attend",
        "captioning/model/decoders/test_transformer",
    ),
    "captioning/model/decoders/factory.py": ("captioning/model/decoders/test_interface",),
    "captioning/training/collectives.py": ("captioning/training/test_loop", "integration/test_training_in_groups"),
    "captioning/training/ddp.py": ("integration/test_training_in_groups",),
    "captioning/training/gradients.py": ("captioning/training/test_loop", "captioning/training/test_bad_samples"),
    "captioning/training/losses.py": ("captioning/training/test_loop", "captioning/model/test_caption_model"),
    "cluster/coordination/interface.py": ("cluster/coordination/test_client", "cluster/coordination/test_local"),
    "cluster/data/conversion_config.py": ("jobs/test_convert", "cluster/api/test_training"),
    "cluster/data/document_frequencies.py": ("integration/test_document_frequencies",),
    "cluster/data/loader_processes.py": ("cluster/data/test_loading",),
    "cluster/data/sources.py": ("cluster/data/test_loading", "integration/test_feature_training"),
    "cluster/job_progress.py": ("jobs/console/test_job_view",),
    "cluster/promotion/gate_config.py": ("cluster/promotion/test_gate_checks",),
    "cluster/promotion/pages.py": ("jobs/test_promote", "jobs/test_evaluate"),
    "cluster/registry/history.py": ("cluster/registry/test_champion",),
    "cluster/registry/models.py": ("cluster/registry/test_versions",),
    "cluster/registry/scores.py": ("cluster/registry/test_versions",),
    "cluster/registry/evaluations.py": ("cluster/registry/test_versions",),
    "cluster/registry/safe_loading.py": ("cluster/registry/test_registration",),
    "cluster/runs/identity.py": ("cluster/runs/test_record",),
    "cluster/runs/pruning.py": ("cluster/runs/test_record", "cluster/runs/test_writer"),
    "cluster/submission/plan.py": ("jobs/test_submit", "integration/test_submitted_jobs"),
    "cluster/training/driver.py": ("integration/test_training_that_stops", "cluster/training/test_frames"),
    "cluster/worker/resume.py": ("cluster/worker/test_checkpointing", "faults/test_kills"),
    "cluster/worker/start.py": ("cluster/worker/test_rank",),
    "shards/file_part.py": ("shards/test_source_files",),
    "shards/records.py": ("shards/test_finished_shards",),
    "shards/sources/annotations.py": ("shards/sources/test_coco_faults",),
    "cluster/worker/worker.py": ("integration/test_training", "cluster/training/test_frames"),
    "jobs/console/demo_view.py": ("integration/test_demonstration",),
    "jobs/console/dry_run_view.py": ("integration/test_dry_run", "jobs/test_submit"),
    "jobs/demo.py": ("integration/test_readme",),
    "jobs/download.py": ("shards/archives/test_download",),
    "jobs/jobs.py": ("integration/test_submitted_jobs",),
    "jobs/lineage.py": ("cluster/provenance/test_lineage",),
    "jobs/register.py": ("jobs/test_promote", "integration/test_registry_story"),
    "jobs/serve.py": ("integration/test_model_server", "cluster/registry/test_registration"),
    "jobs/status.py": ("jobs/console/test_job_view", "integration/test_submitted_jobs"),
    "jobs/stop.py": ("integration/test_submitted_jobs",),
}


def test_no_folder_holds_more_files_than_a_reader_can_survey():
    files = [path for package in (*PACKAGES, "tests") for path in sources(package) if path.name != "__init__.py"]
    sizes = Counter(path.parent.relative_to(ROOT).as_posix() for path in files)
    assert {name: size for name, size in sizes.items() if size > MOST_FILES and name not in AS_MANY_AS_JOBS} == {}


def test_no_file_is_longer_than_a_reader_can_hold():
    files = [path for package in (*PACKAGES, "tests") for path in sources(package)]
    sizes = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in files}
    assert {name: size for name, size in sizes.items() if size > MOST_LINES} == {}


def test_each_package_says_what_lives_in_it():
    folders = {path.parent for package in PACKAGES for path in sources(package)}
    assert [folder for folder in folders if not (ROOT / folder / "__init__.py").read_text().startswith('"""')] == []


def test_each_module_has_a_test_file_at_its_mirrored_path_or_a_reason():
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in sources(package)
        if path.name != "__init__.py"
    }
    untested = {name for name in modules if not mirrored(name).is_file()}
    assert untested == set(TESTED_ELSEWHERE)


def test_the_files_that_test_a_module_without_its_own_are_there():
    named = [(name, file) for name, files in TESTED_ELSEWHERE.items() for file in files]
    assert [one for one in named if not (ROOT / "tests" / f"{one[1]}.py").is_file()] == []


def mirrored(name):
    path = ROOT / "tests" / name
    return path.with_name(f"test_{path.name}")
