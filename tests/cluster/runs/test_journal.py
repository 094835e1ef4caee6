import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.runs.journal import DamagedSegmentError, Journal, Row, list_segments, mark_shipped, read_segment, unshipped


def row(step, timestamp_ms=0, **metrics):
    return Row(step, timestamp_ms, metrics or {"loss": float(step)})


def steps_on_disk(folder):
    return [one.step for _, rows in unshipped(folder) for one in rows]


def test_rows_come_back_with_their_timestamps(tmp_path):
    journal = Journal(tmp_path)
    journal.append(row(1, 1234, loss=0.5))
    journal.flush()
    assert list(unshipped(tmp_path)) == [(tmp_path / "000001.0.jsonl", [Row(1, 1234, {"loss": 0.5})])]


def test_what_is_not_flushed_is_not_on_disk(tmp_path):
    Journal(tmp_path).append(row(1))
    assert steps_on_disk(tmp_path) == []


@settings(max_examples=25, deadline=None, derandomize=True)
@given(attempts=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=6))
def test_no_step_stands_twice_whatever_is_computed_again(tmp_path_factory, attempts):
    folder = tmp_path_factory.mktemp("journal")
    for start, count in attempts:
        journal = Journal(folder)
        for step in range(start, start + count):
            journal.append(row(step))
        journal.flush()
    steps = steps_on_disk(folder)
    assert steps == sorted(set(steps))


def test_a_reopened_journal_drops_what_it_has(tmp_path):
    journal = Journal(tmp_path)
    journal.append(row(5))
    journal.flush()
    assert not Journal(tmp_path).append(row(5))


def test_what_was_shipped_is_not_offered_again(tmp_path):
    journal = Journal(tmp_path)
    for step in (1, 2):
        journal.append(row(step))
        journal.flush()
    mark_shipped(list_segments(tmp_path)[0])
    assert steps_on_disk(tmp_path) == [2]


def test_a_half_written_segment_is_not_read(tmp_path):
    (tmp_path / ".000001.jsonl.abcd.tmp").write_text('{"step": 1, "times')
    assert steps_on_disk(tmp_path) == []


def test_segments_are_never_rewritten(tmp_path):
    journal = Journal(tmp_path)
    for step in (1, 2):
        journal.append(row(step))
        journal.flush()
    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == ["000001.0.jsonl", "000002.0.jsonl"]


@pytest.mark.parametrize("num_threads", [4])
def test_threads_lose_no_row(tmp_path, num_threads):
    journal = Journal(tmp_path)
    flushing = [threading.Thread(target=lambda: [journal.flush() for _ in range(50)]) for _ in range(num_threads)]
    for thread in flushing:
        thread.start()
    for step in range(200):
        journal.append(row(step))
    for thread in flushing:
        thread.join()
    journal.flush()
    assert steps_on_disk(tmp_path) == list(range(200))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"step": 1, "timestamp_ms": 5, "metrics": {}}\n{"step": 2, "ti', "line 2 is not a row; restore the file"),
        (b'{"step": 1}\n', "line 1 is not a row"),
        (b"\x00\xff\n", "line 1 is not a row"),
        (b"7\n", "line 1 is not a row"),
        (b"", "it is empty; restore the file from a copy, or move it away"),
    ],
)
def test_a_damaged_segment_is_named(tmp_path, content, message):
    path = tmp_path / "000001.jsonl"
    path.write_bytes(content)
    with pytest.raises(DamagedSegmentError, match=rf"000001\.jsonl is damaged: {message}"):
        read_segment(path)


def test_a_journal_does_not_go_on_after_a_damaged_segment(tmp_path):
    (tmp_path / "000001.jsonl").write_bytes(b'{"step')
    with pytest.raises(DamagedSegmentError, match="is damaged"):
        Journal(tmp_path)


def written(folder, step, *, attempt=0, journal=None):
    journal = journal or Journal(folder, attempt=attempt)
    journal.append(row(step, attempt))
    journal.flush()
    return journal


@pytest.mark.parametrize("is_first", [True, False])
def test_rows_of_a_process_that_was_cut_off_damage_nothing_and_are_not_read(tmp_path, is_first):
    cut_off = written(tmp_path, 1, attempt=1)
    current = Journal(tmp_path, attempt=2)
    for journal in (cut_off, current) if is_first else (current, cut_off):
        written(tmp_path, 2, attempt=journal.attempt, journal=journal)
    written(tmp_path, 3, attempt=1, journal=cut_off)
    assert [(one.step, one.timestamp_ms) for _, rows in unshipped(tmp_path) for one in rows] == [(1, 1), (2, 2)]
    assert [path.name for path, _ in current.unshipped()] == ["000001.1.jsonl", "000002.2.jsonl"]
    assert Journal(tmp_path, attempt=3).last_step == 2


def test_a_segment_of_a_cut_off_process_that_was_shipped_hides_no_row(tmp_path):
    cut_off = written(tmp_path, 1, attempt=1)
    current = Journal(tmp_path, attempt=2)
    written(tmp_path, 2, attempt=1, journal=cut_off)
    mark_shipped(list_segments(tmp_path)[-1])
    written(tmp_path, 2, attempt=2, journal=current)
    assert [path.name for path, _ in unshipped(tmp_path)] == ["000002.2.jsonl"]


def test_two_processes_of_one_attempt_do_not_overwrite_each_other(tmp_path):
    first, second = Journal(tmp_path, attempt=1), Journal(tmp_path, attempt=1)
    written(tmp_path, 1, journal=first)
    with pytest.raises(FileExistsError, match=r"000001\.1\.jsonl was written by another process; end the run's other"):
        written(tmp_path, 9, journal=second)
    assert steps_on_disk(tmp_path) == [1]


def test_a_record_from_an_old_copy_hides_no_new_row(tmp_path):
    written(tmp_path, 1, attempt=7)
    written(tmp_path, 2, attempt=3)
    assert steps_on_disk(tmp_path) == [1, 2]


def test_numbers_of_more_than_six_digits_are_in_order(tmp_path):
    (tmp_path / "999998.1.jsonl").write_text('{"step": 1, "timestamp_ms": 0, "metrics": {}}\n')
    for step in range(2, 5):
        written(tmp_path, step, attempt=1)
    names = ["999998.1.jsonl", "999999.1.jsonl", "1000000.1.jsonl", "1000001.1.jsonl"]
    assert ([path.name for path in list_segments(tmp_path)], steps_on_disk(tmp_path)) == (names, [1, 2, 3, 4])


def test_a_journal_of_an_earlier_release_goes_on(tmp_path):
    for number, mark in ((1, ""), (2, ".late"), (3, "")):
        line = f'{{"step": {number}, "timestamp_ms": 0, "metrics": {{}}}}\n'
        (tmp_path / f"00000{number}{mark}.jsonl").write_text(line)
    (tmp_path / "shipped.json").write_text('{"segment": 2}')
    journal = written(tmp_path, 4, attempt=2)
    names = ["000003.jsonl", "000004.2.jsonl"]
    assert ([path.name for path, _ in journal.unshipped()], steps_on_disk(tmp_path)) == (names, [3, 4])


def test_a_journal_that_is_written_is_not_listed_again(tmp_path, monkeypatch):
    journal = written(tmp_path, 1)
    monkeypatch.setattr("cluster.runs.journal.list_segments", None)
    written(tmp_path, 2, journal=journal)
    assert [one.step for _, rows in journal.unshipped() for one in rows] == [1, 2]
