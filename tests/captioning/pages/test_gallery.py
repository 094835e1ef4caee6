import io
import math
from xml.etree import ElementTree

import pytest
from PIL import Image

from captioning.pages.gallery import Curve, GalleryItem, write_gallery
from tests.support.html import HOSTILE, Page, decode


def jpeg(shade=128):
    content = io.BytesIO()
    Image.new("RGB", (32, 24), (shade, 90, 200)).save(content, "JPEG")
    return content.getvalue()


def item(**changes):
    return GalleryItem(**{"name": "dog.jpg", "jpeg": jpeg(), "captions": ["a dog runs"], **changes})


@pytest.fixture
def page_of(tmp_path):
    def write(*items, title="Captions", **options):
        write_gallery(tmp_path / "page.html", items, title=title, **options)
        return Page(tmp_path / "page.html")

    return write


def test_each_picture_is_in_the_page_byte_for_byte(page_of):
    page = page_of(item(jpeg=jpeg(1)), item(jpeg=jpeg(2)))
    assert [decode(image["src"], "image/jpeg") for image in page.all("img")] == [jpeg(1), jpeg(2)]


def test_the_best_caption_is_the_alternative_text(page_of):
    [image] = page_of(item(captions=["a dog runs", "a cat"])).all("img")
    assert (image["alt"], image["loading"]) == ("a dog runs", "lazy")


def test_captions_keep_their_order_and_log_probabilities(page_of):
    page = page_of(item(captions=["first", "second", "third"], log_probabilities_nats=[-1.0, -2.345, -3.0]))
    shown = [text for text in page.texts if text in {"first", "second", "third"} or text.endswith("nats")]
    assert shown == ["first", "-1.00 nats", "second", "-2.35 nats", "third", "-3.00 nats"]


def test_hostile_text_stays_text_everywhere(page_of):
    hostile = item(name=HOSTILE, captions=[HOSTILE, HOSTILE], references=[HOSTILE], scores=[(HOSTILE, HOSTILE)])
    curve = Curve(name=HOSTILE, points=[(0, 1.0)])
    page = page_of(hostile, title=HOSTILE, summary=[(HOSTILE, HOSTILE)], curves=[curve])
    assert not page.all("script")
    assert not any(attribute.startswith("on") for _, attributes in page.tags for attribute in attributes)
    assert page.texts.count(HOSTILE) == 10
    assert page.all("img")[1]["alt"] == HOSTILE


def test_the_page_needs_nothing_beside_it(page_of):
    page = page_of(item(), curves=[Curve(name="loss", points=[(0, 1.0)])])
    addresses = [
        attributes[key] for _, attributes in page.tags for key in ("src", "href", "srcset") if key in attributes
    ]
    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    assert not page.all("script") + page.all("link")


def test_the_page_follows_a_light_or_dark_system(page_of):
    page = page_of(item())
    assert {"name": "color-scheme", "content": "light dark"} in page.all("meta")
    assert any("prefers-color-scheme: dark" in text for text in page.texts)


def test_references_are_folded_away_and_absent_without_any(page_of):
    page = page_of(item(references=["someone's dog"]), item())
    assert len(page.all("details")) == 1
    assert "open" not in page.all("details")[0]
    assert "someone's dog" in page.texts


@pytest.mark.parametrize(("verdict", "badges"), [(True, ["✓ true"]), (False, ["✗ false"]), (None, [])])
def test_a_verdict_is_told_in_words_and_not_by_colour_alone(page_of, verdict, badges):
    page = page_of(item(verdict=verdict))
    assert [text for text in page.texts if text.startswith(("✓", "✗"))] == badges


def test_the_summary_pairs_names_with_values(page_of):
    texts = page_of(item(), summary=[("CIDEr-D", "0.943"), ("BLEU-4", "0.311")]).texts
    start = texts.index("CIDEr-D")
    assert [text for text in texts[start:] if text][:4] == ["CIDEr-D", "0.943", "BLEU-4", "0.311"]


def test_a_curve_is_drawn_for_light_and_for_dark(page_of):
    page = page_of(curves=[Curve(name="loss (nats)", points=[(0, 4.0), (50, math.nan), (100, 2.5)])])
    [source], [image] = page.all("source"), page.all("img")
    light, dark = decode(image["src"], "image/svg+xml"), decode(source["srcset"], "image/svg+xml")
    assert ElementTree.fromstring(light).tag == ElementTree.fromstring(dark).tag == "{http://www.w3.org/2000/svg}svg"
    assert light != dark
    assert image["alt"] == "loss (nats): 4 at step 0, 2.5 at step 100"


def test_drawing_leaves_no_figure_open(page_of):
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    page_of(curves=[Curve(name="loss", points=[(0, 1.0)])])
    assert pyplot.get_fignums() == before


def test_the_same_input_gives_the_same_bytes(tmp_path):
    for name in ("one.html", "two.html"):
        write_gallery(tmp_path / name, [item()], title="x", curves=[Curve(name="loss", points=[(0, 1.0), (1, 0.5)])])
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_some_hundred_pictures_make_one_page(page_of):
    page = page_of(*(item(name=f"{number}.jpg") for number in range(300)))
    assert len(page.all("figure")) == len(page.all("img")) == 300


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"jpeg": b"\x89PNG\r\n"}, r"dog.jpg starts with b'\\x89PNG', which is not JPEG: .*; encode it as JPEG"),
        ({"jpeg": b""}, "dog.jpg starts with b'', which is not JPEG"),
        ({"captions": []}, "dog.jpg has no caption, .*; give a caption, or leave the image out"),
        (
            {"log_probabilities_nats": [-1.0, -2.0]},
            r"dog.jpg has different numbers of captions \(1\) and log-probabilities \(2\); give one per caption",
        ),
    ],
)
def test_an_item_that_would_show_badly_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        item(**changes)


@pytest.mark.parametrize("points", [[], [(0, math.nan), (1, math.inf)]])
def test_a_curve_without_a_finite_value_is_refused(points):
    with pytest.raises(
        ValueError, match=rf"curve 'loss' has no finite value \(points: {len(points)}\), .*; leave it out"
    ):
        Curve(name="loss", points=points)
