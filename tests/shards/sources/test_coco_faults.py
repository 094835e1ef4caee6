"""Faulty annotation files."""

import pytest

from shards.sources.annotations import fault_of
from shards.sources.coco import read_coco
from tests.support.case_table import each_case
from tests.support.pictures import write_annotations, write_coco

SKIP_HINT = r"; fix the source, or set them aside with --on-bad skip$"


def image(number, **changes):
    return {"id": number, "file_name": f"{number:012d}.jpg", **changes}


def caption(number, text="A dog.", **changes):
    return {"id": number, "image_id": number, "caption": text, **changes}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"is not JSON \(.*\); fetch it again"),
        ('{"images": [{"id": 1', r"is not JSON \(.*\); fetch it again"),
        ("[" * 200_000, r"is not JSON \(.*\); fetch it again"),
        ("9" * 5000, r"is not JSON \(.*\); fetch it again"),
        ([], "has no list images and no list annotations; use a COCO captions file"),
        ("null", "has no list images and no list annotations"),
        ({"annotations": []}, "has no list images; use a COCO captions file"),
        ({"images": []}, "has no list annotations"),
        ({"images": {}, "annotations": 3}, "has no list images and no list annotations"),
        ({"images": [], "annotations": []}, "has no usable image; give a file with at least one"),
    ],
)
@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_file_that_is_no_annotation_file_is_refused(tmp_path, content, message, skip_bad):
    write_annotations(tmp_path, content)
    with pytest.raises(ValueError, match=rf"captions_train.json {message}") as refusal:
        read_coco(tmp_path, skip_bad=skip_bad)
    assert len(str(refusal.value).splitlines()) == 1


def test_bytes_that_are_no_text_are_refused(tmp_path):
    write_annotations(tmp_path, "")
    (tmp_path / "annotations" / "captions_train.json").write_bytes(b'{"images": "\xff\xff"}')
    with pytest.raises(ValueError, match="is not JSON"):
        read_coco(tmp_path)


# Entries of the file beside the valid images 1 and 2 -> the key and the reason with which they are set aside.
FAULTS = {
    "caption of a number": ([], [caption(1, 5)], "annotations[2]", "has caption 5, which is not a string"),
    "caption of a list": (
        [],
        [caption(1, ["A dog."])],
        "annotations[2]",
        'has caption ["A dog."], which is not a string',
    ),
    "null caption": ([], [caption(1, None)], "annotations[2]", "has caption null, which is not a string"),
    "half a character": (
        [],
        [caption(1, "A \ud83d.")],
        "annotations[2]",
        r'has caption "A \ud83d.", which contains half',
    ),
    "no caption": ([], [{"id": 9, "image_id": 1}], "annotations[2]", "has no caption"),
    "caption of no image": ([], [{"id": 9, "caption": "A."}], "annotations[2]", "has no image_id"),
    "caption of text 1": ([], [caption(1, image_id="1")], "annotations[2]", 'has image_id "1", which is not an int'),
    "no object": ([], [7], "annotations[2]", "is 7, not an object"),
    "null annotation": ([], [None], "annotations[2]", "is null, not an object"),
    "caption of image 9": (
        [],
        [caption(9)],
        "000000000009",
        "annotations[2] refers to image 9, which is not in images[]",
    ),
    "empty caption": ([], [caption(1, "")], "000000000001", "a caption of image 1 (000000000001.jpg) is empty"),
    "caption of spaces": ([], [caption(1, " \n\t ")], "000000000001", "is empty or only spaces"),
    "endless caption": ([], [caption(1, "!" * 5001)], "000000000001", "has 5001 characters, more than 5000"),
    "id of text": ([{"id": "3", "file_name": "a"}], [], "images[2]", 'has id "3", which is not an integer'),
    "id of a fraction": ([{"id": 3.0, "file_name": "a"}], [], "images[2]", "has id 3.0, which is not an integer"),
    "id of a truth": ([{"id": True, "file_name": "a"}], [], "images[2]", "has id true, which is not an integer"),
    "no id": ([{"file_name": "3.jpg"}], [], "images[2]", "has no id"),
    "no file name": ([{"id": 3}], [caption(3)], "images[2]", "has no file_name"),
    "null file name": (
        [image(3, file_name=None)],
        [caption(3)],
        "images[2]",
        "has file_name null, which is not a string",
    ),
    "image of text": (["3.jpg"], [], "images[2]", 'is "3.jpg", not an object'),
    "long nonsense": ([list(range(99))], [], "images[2]", "is [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10,"),
    "no such file": ([image(4)], [caption(4)], "000000000004", "image 4 (000000000004.jpg) is in none of"),
    "empty file name": ([image(4, file_name="")], [caption(4)], "000000000004", "image 4 () has no name of a file"),
    "no captions": ([image(3)], [], "000000000003", "image 3 (000000000003.jpg) has no caption"),
    "way out": ([image(4, file_name="../secret.jpg")], [caption(4)], "000000000004", "points outside its folder"),
    "hidden way out": ([image(4, file_name="a/../../secret.jpg")], [caption(4)], "000000000004", "points outside its"),
    "absolute": ([image(4, file_name="/etc/passwd")], [caption(4)], "000000000004", "has an absolute path"),
    "one id twice": (
        [image(3), image(3, file_name="b")],
        [caption(3)],
        "000000000003",
        "image id 3 is used by 2 images",
    ),
}


@pytest.fixture
def faulty(tmp_path):
    def write(name):
        images, annotations, key, reason = FAULTS[name]
        write_coco(tmp_path)
        (tmp_path / "secret.jpg").write_bytes(b"outside")
        sound = [image(1), image(2)], [caption(1), caption(2)]
        write_annotations(tmp_path, {"images": sound[0] + images, "annotations": sound[1] + annotations})
        return tmp_path, key, reason

    return write


@each_case("name", FAULTS)
def test_a_faulty_entry_refuses_the_source(faulty, name):
    source, _, reason = faulty(name)
    with pytest.raises(ValueError, match=rf"captions_train.json: .*{SKIP_HINT}") as refusal:
        read_coco(source)
    assert reason in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_entry_is_set_aside_and_the_rest_is_kept(faulty, name):
    source, key, reason = faulty(name)
    annotations = read_coco(source, skip_bad=True)
    assert [one.captions for one in annotations.splits["train"]] == [("A dog.",), ("A dog.",)]
    assert [(one.key, reason in one.reason) for one in annotations.set_aside] == [(key, True)]


def test_all_faults_are_counted(tmp_path):
    write_coco(tmp_path)
    content = {"images": [image(1), image(8), image(9)], "annotations": [caption(number) for number in (1, 7, 8, 9)]}
    write_annotations(tmp_path, content)
    with pytest.raises(ValueError, match=rf"to image 7, which is not in images\[\] \(and 2 more\){SKIP_HINT}"):
        read_coco(tmp_path)


def test_a_source_with_nothing_but_faults_is_refused(tmp_path):
    write_annotations(tmp_path, {"images": [image(1)], "annotations": [caption(1)]})
    with pytest.raises(ValueError, match=r"has no usable image \(image 1 .* is in none of .*\); give a file with"):
        read_coco(tmp_path, skip_bad=True)


def test_an_empty_split_is_noticed_beside_a_faulty_one(tmp_path):
    content = write_coco(tmp_path)
    write_annotations(tmp_path, {**content, "images": [*content["images"], image(9)]})
    write_annotations(tmp_path, {"images": [], "annotations": []}, name="val")
    with pytest.raises(ValueError, match=r"captions_val.json has no usable image"):
        read_coco(tmp_path, skip_bad=True)


def test_absent_photographs_are_counted(shared_data, tmp_path):
    (tmp_path / "annotations").symlink_to(shared_data / "annotations")
    with pytest.raises(ValueError, match=rf"image 139 .* is in none of .* \(and 4999 more\){SKIP_HINT}"):
        read_coco(tmp_path)


FORM = {"id": int, "file_name": str}


@each_case(
    ("entry", "fault"),
    [
        ({"id": 1, "file_name": "a.jpg", "width": 3}, ""),
        (3, "is 3, not an object"),
        ({"file_name": "a.jpg"}, "has no id"),
        ({"id": True, "file_name": "a.jpg"}, "has id true, which is not an integer"),
        ({"id": 1.5, "file_name": "a.jpg"}, "has id 1.5, which is not an integer"),
        ({"id": 1.0, "file_name": "a.jpg"}, 'has id 1.0, which is not an integer (write 1, without quotes or ".0")'),
        ({"id": "01", "file_name": "a.jpg"}, 'has id "01", which is not an integer (write 1, without quotes or ".0")'),
        ({"id": "2.0", "file_name": 1}, 'has id "2.0", which is not an integer (write 2, without quotes or ".0")'),
        ({"id": "dog", "file_name": "a.jpg"}, 'has id "dog", which is not an integer'),
        ({"id": 1, "file_name": 1.0}, "has file_name 1.0, which is not a string"),
        ({"id": 1, "file_name": ["a"]}, 'has file_name ["a"], which is not a string'),
        ({"id": 1, "file_name": "\ud800"}, 'has file_name "\\ud800", which contains half of a surrogate pair'),
        ("a" * 99, f'is "{"a" * 59}..., not an object'),
    ],
)
def test_the_first_fault_of_an_entry_is_told(entry, fault):
    assert fault_of(entry, FORM) == fault
