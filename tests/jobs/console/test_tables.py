import pytest

from jobs.console.tables import show_table


@pytest.mark.parametrize(("one_line", "num_lines"), [(True, 6), (False, 8)])
def test_a_row_is_cut_to_one_line_or_wrapped(one_line, num_lines, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    command = "train coco --shards s3://bucket/shards [x] " * 3
    show_table("Jobs", ("job", "command"), [("search-12", command)], one_line=one_line)
    lines = capsys.readouterr().err.splitlines()
    assert (len(lines), max(map(len, lines)) <= 80, "[x]" in lines[4]) == (num_lines, True, True), lines
