import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.runs.journal import DamagedSegmentError, Journal, Row, mark_shipped, read_segment, unshipped


def row(step, timestamp_ms=0, **metrics):
    return Row(step, timestamp_ms, metrics or {"loss": float(step)})


def steps_on_disk(folder):
    return [one.step for _, rows in unshipped(folder) for one in rows]


def test_rows_come_back_with_their_timestamps(tmp_path):
    journal = Journal(tmp_path)
    journal.append(row(1, 1234, loss=0.5))
    journal.flush()
    assert list(unshipped(tmp_path)) == [(1, [Row(1, 1234, {"loss": 0.5})])]


def test_what_is_not_flushed_is_not_on_disk(tmp_path):
    Journal(tmp_path).append(row(1))
    assert steps_on_disk(tmp_path) == []


@settings(max_examples=40, deadline=None, derandomize=True)
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
    mark_shipped(journal.folder, 1)
    assert steps_on_disk(tmp_path) == [2]


def test_a_half_written_segment_is_not_read(tmp_path):
    (tmp_path / ".000001.jsonl.abcd.tmp").write_text('{"step": 1, "times')
    assert steps_on_disk(tmp_path) == []


def test_segments_are_never_rewritten(tmp_path):
    journal = Journal(tmp_path)
    for step in (1, 2):
        journal.append(row(step))
        journal.flush()
    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == ["000001.jsonl", "000002.jsonl"]


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
