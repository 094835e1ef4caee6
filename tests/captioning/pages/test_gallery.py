import io
import random
import re

import pytest
from PIL import Image

from captioning.pages.gallery import MOST_PICTURES, GalleryItem, GalleryPage, choose, write_gallery
from tests.support.case_table import each_case
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
        write_gallery(tmp_path / "page.html", items, GalleryPage(title=title, **options))
        return Page(tmp_path / "page.html")

    return write


def test_each_picture_is_in_the_page_byte_for_byte(page_of):
    page = page_of(item(jpeg=jpeg(1)), item(jpeg=jpeg(2)))
    assert [decode(image["src"], "image/jpeg") for image in page.all("img")] == [jpeg(1), jpeg(2)]


def test_the_best_caption_is_the_alternative_text(page_of):
    [image] = page_of(item(captions=["a dog runs", "a cat"])).all("img")
    assert (image["alt"], image["loading"]) == ("a dog runs", "lazy")


def test_captions_keep_their_order_and_the_best_has_a_log_probability(page_of):
    page = page_of(item(captions=["first", "second", "third"], log_probability_nats=-2.345))
    shown = [text for text in page.texts if text in {"first", "second", "third"} or text.endswith("nats")]
    assert shown == ["first", "second", "third", "-2.35 nats"]


def test_hostile_text_stays_text_everywhere(page_of):
    hostile = item(
        name=HOSTILE, captions=[HOSTILE, HOSTILE], references=[HOSTILE], scores=[(HOSTILE, 1.0)], rival=HOSTILE
    )
    pairs = [(HOSTILE, HOSTILE)]
    page = page_of(
        hostile, title=HOSTILE, kicker=HOSTILE, lead=HOSTILE, summary=pairs, faults=[HOSTILE], commands=pairs,
        facts=[(HOSTILE, pairs)], order=HOSTILE,
    )  # fmt: skip
    page.assert_only_own_script()
    # Title twice, kicker, lead, summary 2, order, captions 2, score, name, reference, fault, facts 3, command 2.
    assert sum(text.count(HOSTILE) for text in page.texts) == 18 + 2  # and two orders by the score
    assert page.all("img")[0]["alt"] == HOSTILE


def test_the_page_needs_nothing_beside_it(page_of):
    page = page_of(item())
    addresses = [
        attributes[key] for _, attributes in page.tags for key in ("src", "href", "srcset") if key in attributes
    ]
    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    assert not page.all("link")


def test_the_page_follows_a_light_or_dark_system(page_of):
    page = page_of(item())
    assert {"name": "color-scheme", "content": "light dark"} in page.all("meta")
    assert any("prefers-color-scheme: dark" in text for text in page.texts)


def test_references_stand_beside_the_caption_and_are_absent_without_any(page_of):
    page = page_of(item(references=["someone's dog"]), item())
    assert not page.all("details")
    assert [text for text in page.texts if text in {"Reference", "References", "someone's dog"}] == [
        "Reference", "someone's dog",
    ]  # fmt: skip


def test_inputs_without_a_caption_are_listed(page_of):
    page = page_of(item(), faults=["b.png: not an image", "c.png: not an image"])
    assert "2 inputs without a caption" in page.texts
    assert "c.png: not an image" in page.texts


@each_case(("verdict", "badges"), [(True, ["✓ true"]), (False, ["✗ false"]), (None, [])])
def test_a_verdict_is_told_in_words_and_not_by_colour_alone(page_of, verdict, badges):
    page = page_of(item(verdict=verdict))
    assert [text for text in page.texts if text.startswith(("✓", "✗"))] == badges


def test_the_summary_pairs_names_with_values(page_of):
    texts = page_of(item(), summary=[("CIDEr-D", "0.943"), ("BLEU-4", "0.311")]).texts
    start = texts.index("CIDEr-D")
    assert [text for text in texts[start:] if text][:4] == ["CIDEr-D", "0.943", "BLEU-4", "0.311"]


def test_the_same_input_gives_the_same_bytes(tmp_path):
    for name in ("one.html", "two.html"):
        write_gallery(tmp_path / name, [item()], GalleryPage(title="x"))
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_five_thousand_pictures_are_limited_and_the_page_says_so(page_of, tmp_path):
    content = io.BytesIO()
    noise = Image.frombytes("L", (210, 185), random.Random(0).randbytes(210 * 185))
    noise.save(content, "JPEG", quality=61)
    assert 19_000 < len(content.getvalue()) <= 20_000  # as large as a picture of so many may be
    items = [item(name=f"{number}.jpg", jpeg=content.getvalue()) for number in range(MOST_PICTURES)]
    page = page_of(*items, num_pictures=5000)
    [note] = [text for text in page.texts if text.startswith("300 of 5,000 pictures")]
    assert "limited to 300" in re.sub(r"\s+", " ", note)
    assert len(page.all("img")) == 300
    assert (tmp_path / "page.html").stat().st_size < 10_000_000


@each_case(
    ("count", "most", "chosen"),
    [(3, 6, [0, 1, 2]), (12, 6, [0, 1, 2, 6, 10, 11]), (0, 6, []), (100, 3, [0, 1, 99])],
)
def test_a_selection_has_both_ends_of_a_ranking_and_a_spread_between(count, most, chosen):
    assert choose(range(count), most) == chosen


@each_case(
    ("changes", "message"),
    [
        ({"jpeg": b"\x89PNG\r\n"}, r"dog.jpg begins with b'\\x89PNG\\r\\n' and is not JPEG: .*; encode it as JPEG"),
        ({"jpeg": b""}, "dog.jpg is empty and is not JPEG"),
        ({"captions": []}, "dog.jpg has no caption, .*; give a caption, or leave the image out"),
    ],
)
def test_an_item_that_would_show_badly_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        item(**changes)
