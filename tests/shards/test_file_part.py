import pytest

from shards.file_part import FilePart, size_of_file


@pytest.fixture
def part(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    return FilePart("a.jpg", tmp_path / "file", 2, 5)


def test_a_part_is_read_as_a_file_of_its_own(part):
    assert (part.read_bytes(), part.read_some(1, 2), part.read_some(3, 9)) == (b"23456", b"34", b"56")
    assert (size_of_file(part), size_of_file(part.file), part.stat().st_size) == (5, 10, 10)
    assert str(part) == f"a.jpg in {part.file}"
