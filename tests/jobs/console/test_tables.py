import pytest

from jobs.console.tables import show_table


@pytest.mark.parametrize(("one_line", "num_lines"), [(True, 6), (False, 8)])
def test_a_row_is_cut_to_one_line_or_wrapped(one_line, num_lines, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    command = "train coco --shards s3://bucket/shards [x] " * 3
    show_table("Jobs", ("job", "command"), [("search-12", command)], one_line=one_line)
    lines = capsys.readouterr().err.splitlines()
    assert (len(lines), max(map(len, lines)) <= 80, "[x]" in lines[4]) == (num_lines, True, True), lines


def test_titles_and_cells_are_shown_as_they_are_but_for_what_is_not_printable(capsys):
    show_table("[b]a\x1b[2J", ("x",), [("[red]b\nc\udce9",)])
    told = capsys.readouterr().err
    assert ("[b]a\\x1b[2J" in told, "[red]b\\nc\\udce9" in told) == (True, True)
