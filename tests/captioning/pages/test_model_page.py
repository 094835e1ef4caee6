import io
from dataclasses import replace

import pytest
from PIL import Image

from captioning.pages.charts import Chart, Curve
from captioning.pages.gallery import GalleryItem, Names
from captioning.pages.model_page import ModelPage, Sample, write_model_page
from captioning.pages.score_table import score_rows
from tests.support.html import HOSTILE, Page


def jpeg():
    content = io.BytesIO()
    Image.new("RGB", (32, 24), "blue").save(content, "JPEG")
    return content.getvalue()


FULL = ModelPage(
    title="run",
    kicker="Training run",
    scores=score_rows({"CIDEr-D": 1.0}, {}),
    charts=[Chart(title="Loss", curves=[Curve(name="", points=[(0, 4.0), (1, 2.0)])])],
    steps=[10, 20, 30],
    samples=[Sample(name="a", jpeg=jpeg(), captions=["a", "a", "a dog"], references=["a dog runs"])],
    items=[GalleryItem(name="b", jpeg=jpeg(), captions=["two dogs"], rival="a cat", gain=0.5)],
    names=Names("version 2", "version 1"),
    facts=[("Model", [("hidden size", "8")]), ("Nothing", [])],
)


@pytest.fixture
def page_of(tmp_path):
    def write(**changes):
        write_model_page(tmp_path / "page.html", replace(FULL, **changes))
        return Page(tmp_path / "page.html")

    return write


def test_the_captions_of_a_picture_are_told_once_for_each_change(page_of):
    page = page_of()
    start = page.texts.index("2 different captions")
    assert [text for text in page.texts[start:] if text][:5] == [
        "2 different captions",
        "step 10",
        "a",
        "step 30",
        "a dog",
    ]
    [sample] = [figure for figure in page.all("figure") if "data-captions" in figure]
    assert sample["data-captions"] == '["a", "a", "a dog"]'


def test_the_rival_is_named_beside_its_caption(page_of):
    texts = page_of().texts
    assert texts[texts.index("two dogs") :][2:4] == ["version 1", "a cat"]
    assert "+0.50" in texts


def test_a_difference_that_rounds_to_nothing_has_no_sign_and_no_colour(page_of):
    page = page_of(items=[replace(FULL.items[0], gain=-0.001)])
    marks = [one["class"] for one in page.all("span") if "score" in one.get("class", "")]
    assert ("±0.00" in page.texts, marks) == (True, ["score"])


def test_groups_without_facts_are_left_out(page_of):
    texts = page_of().texts
    assert ("Model" in texts, "Nothing" in texts) == (True, False)


def test_empty_parts_say_so(page_of):
    texts = page_of(charts=[], samples=[], items=None, evaluate_command="captioning evaluate x").texts
    assert "The metrics of the training are not on this machine." in texts
    assert {"Not evaluated yet.", "captioning evaluate x"} <= set(texts)
    assert "No pictures." in page_of(items=[]).texts


def test_a_single_validation_has_no_slider(page_of):
    sample = replace(FULL.samples[0], captions=["a"])
    assert not page_of(samples=[sample], steps=[10]).all("input")[1:]


def test_hostile_text_stays_text_everywhere(page_of):
    pairs = [(HOSTILE, HOSTILE)]
    item = GalleryItem(
        name=HOSTILE, jpeg=jpeg(), captions=[HOSTILE], references=[HOSTILE], rival=HOSTILE, gain=0.0,
        scores=[(HOSTILE, 1.0)],
    )  # fmt: skip
    page = page_of(
        title=HOSTILE, kicker=HOSTILE, lead=HOSTILE, summary=pairs, scores=score_rows({HOSTILE: 1.0}, {}),
        scores_note=HOSTILE, facts=[(HOSTILE, pairs)], commands=pairs, items=[item], names=Names(HOSTILE, HOSTILE),
        charts=[
            Chart(title=HOSTILE, unit=HOSTILE, x_label=HOSTILE, curves=[Curve(name=HOSTILE, points=[(0, 1.0)])] * 2)
        ],
        samples=[Sample(name=HOSTILE, jpeg=jpeg(), captions=[HOSTILE] * 3, references=[HOSTILE])],
        gallery_title=HOSTILE, gallery_note=HOSTILE,
    )  # fmt: skip
    page.assert_only_own_script()
    assert sum(text.count(HOSTILE) for text in page.texts) > 25


def test_the_same_input_gives_the_same_bytes(tmp_path):
    for name in ("one.html", "two.html"):
        write_model_page(tmp_path / name, FULL)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
