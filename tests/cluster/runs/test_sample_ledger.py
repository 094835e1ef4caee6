from collections import Counter

from cluster.runs.sample_ledger import SampleLedger, read_sample_ledger


def write(folder, attempt, resumed_at, steps, *, ranks=2, keys="ab"):
    """Write the ledger of an attempt whose ranks take the same number of samples."""
    for rank in range(ranks):
        ledger = SampleLedger(folder, attempt=attempt, rank=rank, resumed_at=resumed_at)
        for step in steps:
            ledger.add(step, [f"{step}{keys[rank]}"])
        ledger.close()


def test_an_undisturbed_run_counts_every_step(tmp_path):
    write(tmp_path, 1, 0, [1, 2])
    assert read_sample_ledger(tmp_path) == ({1: ["1a", "1b"], 2: ["2a", "2b"]}, 0, {})


def test_what_is_computed_again_counts_once_and_is_told_apart(tmp_path):
    write(tmp_path, 1, 0, [1, 2, 3])
    write(tmp_path, 2, 2, [3, 4])
    assert read_sample_ledger(tmp_path) == ({step: [f"{step}a", f"{step}b"] for step in (1, 2, 3, 4)}, 2, {1: 1})


def test_an_attempt_that_was_overtaken_twice_counts_up_to_the_earliest_resume(tmp_path):
    write(tmp_path, 1, 0, [1, 2, 3, 4])
    write(tmp_path, 2, 3, [])
    write(tmp_path, 3, 1, [2])  # the checkpoint of step 3 was damaged
    trained = read_sample_ledger(tmp_path)
    assert (sorted(trained.batches), trained.num_redone, trained.steps_redone) == ([1, 2], 6, {1: 3})


def test_a_line_that_a_kill_tore_is_no_step(tmp_path):
    write(tmp_path, 1, 0, [1, 2], ranks=1)
    path = next(tmp_path.iterdir())
    path.write_text(path.read_text()[:-4])
    assert sorted(read_sample_ledger(tmp_path).batches) == [1]


def test_a_file_that_a_kill_left_empty_belongs_to_no_step(tmp_path):
    write(tmp_path, 1, 0, [1], ranks=1)
    (tmp_path / "attempt-0002-rank-0000.jsonl").touch()
    write(tmp_path, 3, 1, [2], ranks=1)
    assert sorted(read_sample_ledger(tmp_path).batches) == [1, 2]


def test_samples_are_counted_by_epoch(tmp_path):
    write(tmp_path, 1, 0, [1, 2])
    trained = read_sample_ledger(tmp_path)
    assert [trained.samples_of_epoch(epoch, 2) for epoch in (0, 1)] == [Counter(["1a", "1b"]), Counter(["2a", "2b"])]
