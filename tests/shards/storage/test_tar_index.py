"""The index of a tar file has what ``tarfile`` finds in it."""

import io
import tarfile

import pytest

from shards.storage import tar_index
from shards.storage.tar_index import index_members
from tests.support.case_table import each_case


def tar_of(members, **options):
    """Return a tar file of (name, size or kind) members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes) and content in (tarfile.DIRTYPE, tarfile.SYMTYPE):
                info.type = content
                tar.addfile(info)
            else:
                info.size = content
                tar.addfile(info, io.BytesIO(bytes(content)))
    return buffer.getvalue()


def by_tarfile(content):
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
        return [(member.name, member.offset_data, member.size) for member in tar if member.isfile()]


PLAIN = [("000001.jpg", 700), ("000001.json", 512), ("folder/2.jpg", 0), ("2.json", 1)]
TARS = {
    "plain": PLAIN,
    "folder": [("a", tarfile.DIRTYPE), *PLAIN],
    "link": [("a.jpg", 3), ("b.jpg", tarfile.SYMTYPE)],
    "long": [("y" * 90 + "/" + "x" * 90 + ".jpg", 9)],
    "hindi": [("\u0905.jpg", 9)],
    "empty": [],
}


@each_case("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@each_case("name", TARS)
def test_the_members_are_those_that_tarfile_finds(name, form):
    content = tar_of(TARS[name], format=form)
    assert index_members(content, io.BytesIO(content)) == by_tarfile(content)


def test_only_plain_headers_are_parsed_here():
    assert [tar_index._plain_members(tar_of(members)) is not None for members in TARS.values()] == [
        name == "plain" for name in TARS
    ]


@each_case("at", [0, 3, 124, 130, 148, 156, 257, 345, 500, 1536, 1600])
def test_a_damaged_header_is_left_to_tarfile(at):
    content = bytearray(tar_of(PLAIN))
    content[at] ^= 0x15
    try:
        expected = by_tarfile(content)
    except tarfile.TarError:
        with pytest.raises(tarfile.TarError):
            index_members(bytes(content), io.BytesIO(content))
    else:
        assert index_members(bytes(content), io.BytesIO(content)) == expected


@each_case("length", [0, 100, 512, 900, 1536, 1800, 2600])
def test_a_cut_tar_file_is_left_to_tarfile(length):
    content = tar_of(PLAIN)[:length]
    try:
        expected = by_tarfile(content)
    except tarfile.TarError:
        with pytest.raises(tarfile.TarError):
            index_members(content, io.BytesIO(content))
    else:
        assert index_members(content, io.BytesIO(content)) == expected
