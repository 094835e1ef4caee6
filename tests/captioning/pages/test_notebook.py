from captioning.pages.gallery import GalleryItem
from captioning.pages.notebook import captions_html, scores_html


def test_scores_stand_in_a_table_with_their_intervals():
    shown = scores_html("val", {"BLEU-4": 0.25, "CIDEr-D": 1.0}, {"BLEU-4": (0.2, 0.3)}, confidence=0.95)
    assert [text in shown for text in ("0.2500", "0.2000 to 0.3000", "1.0000", "95 % interval")] == [True] * 4


def test_texts_are_escaped():
    item = GalleryItem(name="<a>", jpeg=b"\xff\xd8\xff", captions=["a <b>", "c"])
    shown = captions_html([item])
    assert [text in shown for text in ("&lt;a&gt;", "a &lt;b&gt;", "<a>", "a <b>")] == [True, True, False, False]
