"""Malicious, damaged and wrong archives unpack nothing."""

import stat
import zipfile

import pytest

from tests.support.coco_server import CAPTIONS, TRAIN, VAL, layout, pictures_of, serving_coco, zipped


@pytest.fixture
def server(tmp_path, monkeypatch):
    with serving_coco(tmp_path, monkeypatch) as running:
        yield running


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "val2017/../../evil", "C:evil", "val2017\\..\\evil", "a\x1b[2Jb", "a\nb"]
)
def test_an_archive_that_leads_outside_unpacks_nothing(server, tmp_path, name):
    server.offer("val2017", zipped({**VAL, name: b"evil"}), val="val2017")
    with pytest.raises(ValueError, match=r"val2017.zip contains '.*', a link or an unsafe path, so nothing .* trust"):
        server.fetch()
    assert not (tmp_path / "val2017").exists()


def test_an_archive_with_a_link_unpacks_nothing(server, tmp_path):
    link = zipfile.ZipInfo("val2017/000000000001.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    server.offer("val2017", zipped({link: b"/etc/passwd", **VAL}), val="val2017")
    with pytest.raises(ValueError, match=r"val2017/000000000001.jpg', a link or an unsafe path"):
        server.fetch()
    assert not (tmp_path / "val2017").exists()


def test_names_that_are_not_pictures_stay_in_the_archive(server, tmp_path):
    odd = {
        "val2017/.hidden.jpg": b"x",
        "val2017/deep/1.jpg": b"x",
        "val2017/run.sh": b"x",
        ".downloaded/train2017.json": b"x",
    }
    server.offer("val2017", zipped({**VAL, **odd}), val="val2017")
    server.fetch()
    assert pictures_of(tmp_path) == layout(CAPTIONS, VAL, TRAIN)


def test_a_link_in_the_folder_is_not_followed_outside(server, tmp_path, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (tmp_path / "val2017").symlink_to(elsewhere)
    with pytest.raises(ValueError, match=r"val2017 is a link that points outside .*; replace it with a folder"):
        server.fetch()
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda content: content[: len(content) // 2], "File is not a zip file"),
        (lambda content: content.replace(bytes(range(256)), bytes(256), 1), "Bad CRC-32 for file"),
    ],
)
def test_a_damaged_archive_is_told_in_one_line(server, tmp_path, damage, told):
    server.offer("val2017", damage(zipped(VAL)), val="val2017")
    with pytest.raises(RuntimeError, match=rf"val2017.zip is damaged \({told}.*\); delete it and run again"):
        server.fetch()
    assert not (tmp_path / "val2017" / "000000000139.jpg").exists()


def test_an_archive_without_its_pictures_is_refused(server):
    server.offer("val2017", zipped(TRAIN), val="val2017")
    with pytest.raises(
        RuntimeError, match=r"val2017.zip does not contain val2017, so it is a different archive; delete it"
    ):
        server.fetch()
