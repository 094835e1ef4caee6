"""Where the captions are is seen in the first samples of a tar."""

import pytest

from shards.tars.recognition import recognize_captions
from shards.tars.stream import TarError
from tests.support.raw_tars import tar_samples, write_tar


@pytest.mark.parametrize(
    ("captions", "json_of", "found"),
    [
        (None, lambda name: {"caption": "A dog.", "url": "u"}, "txt"),  # as img2dataset writes it
        (lambda name: None, lambda name: {"caption": "A dog."}, "json.caption"),
        (lambda name: None, lambda name: {"texts": ["A dog.", "A cat."]}, "json.texts"),
        (None, lambda name: {"image_id": 1, "captions": ["A dog."]}, "json"),
        (lambda name: None, lambda name: {"label": 3, "caption": None}, None),
        (lambda name: None, None, None),
    ],
)
def test_the_form_is_recognized(tmp_path, captions, json_of, found):
    write_tar(tmp_path / "0.tar", tar_samples(["a", "b"], captions=captions, json_of=json_of))
    assert recognize_captions(str(tmp_path / "0.tar")) == found


def test_two_fields_of_text_need_a_choice(tmp_path):
    fields = {"caption": "A dog.", "text": "Buy dogs here!"}
    write_tar(tmp_path / "0.tar", tar_samples(["a"], captions=lambda name: None, json_of=lambda name: fields))
    with pytest.raises(TarError, match="its json has texts in caption and text; choose one with --captions json"):
        recognize_captions(str(tmp_path / "0.tar"))
