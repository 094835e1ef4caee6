from cluster.errors import one_line


def test_a_message_of_several_lines_becomes_one():
    assert one_line(ValueError("no room\n  on disk\n")) == "ValueError: no room on disk"


def test_a_long_message_is_cut():
    assert one_line(ValueError("no room on disk"), longest=19) == "ValueError: no room"


def test_an_error_without_a_message_has_its_kind():
    assert one_line(KeyError()) == "KeyError:"
