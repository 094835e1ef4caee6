"""Pages in a browser: they fit narrow and wide windows, and their sorts, filters, slider and charts work."""

import io

import pytest
from PIL import Image

from captioning.pages.charts import Chart, Curve
from captioning.pages.gallery import GalleryItem, GalleryPage, Names, write_gallery
from captioning.pages.model_page import ModelPage, Sample, write_model_page
from captioning.pages.score_table import score_rows
from captioning.pages.search_page import SearchPage, Setting, write_search_page
from captioning.pages.trial_summary import TrialSummary
from tests.support.chromium import Browser, needs_chromium
from tests.support.html import HOSTILE

pytestmark = [needs_chromium, pytest.mark.cluster]

LONG = "a-name-without-any-space-" * 6
SHOWN = "[...document.querySelectorAll('#pictures > li:not([hidden]) .name')].map(one => one.textContent)"
CHOOSE = """(one => {{ one.value = {1!r}; one.dispatchEvent(new Event('{2}')) }})(
    document.querySelector('[name={0}]'))"""
PLACE = """(one => {
    one.scrollIntoView({block: 'center', behavior: 'instant'});
    const box = one.getBoundingClientRect();
    return [box.x, box.y, box.width, box.height];
})(document.querySelector('.plot'))"""
SLIDE = """(one => { one.value = 0; one.dispatchEvent(new Event('input')) })(document.querySelector('.slider input'))"""
TOO_WIDE = """[...document.querySelectorAll('main *')].filter(one => one.getBoundingClientRect().right > innerWidth + 1
    && !one.closest('.scroll, pre, svg')).map(one => one.outerHTML.slice(0, 80))"""


def jpeg(shade):
    content = io.BytesIO()
    Image.new("RGB", (64, 48), (shade, 90, 200)).save(content, "JPEG")
    return content.getvalue()


def items():
    scores = {"a": 0.5, "b": 2.0, "c": 1.0}
    return [
        GalleryItem(
            name=name, jpeg=jpeg(number), captions=[f"caption of {name}", LONG], references=["a red dog", HOSTILE],
            scores=[("CIDEr-D", score)], verdict=score >= 1, rival="another", gain=score - 1,
            log_probability_nats=-score,
        )
        for number, (name, score) in enumerate(scores.items())
    ]  # fmt: skip


def write_pages(folder):
    pairs = [(LONG, LONG), ("CIDEr-D", "1.000")]
    write_gallery(folder / "gallery.html", items(), GalleryPage(title=LONG, summary=pairs, faults=[LONG, HOSTILE]))
    page = ModelPage(
        title="run", kicker="Training run", lead=LONG, summary=pairs,
        scores=score_rows({"CIDEr-D": 1.0}, {}, {"CIDEr-D": 2.0}),
        charts=[
            Chart(title="Loss", unit="nats", steps_per_x=10, curves=[
                Curve(name="training", points=[(x / 10, 4 - x / 40) for x in range(100)]),
                Curve(name="validation", points=[(5, 3.0), (9.9, 2.0)], intervals=[(5, 2.5, 3.5), (9.9, 1.5, 2.5)]),
            ])
        ],
        steps=[10, 20], samples=[Sample(name="s", jpeg=jpeg(9), captions=["at first", "at last"])],
        items=items(), names=Names("version 2", LONG), facts=[("Model", pairs)], commands=pairs,
    )  # fmt: skip
    write_model_page(folder / "model.html", page)
    trials = [
        TrialSummary(name=f"trial-{number}", point={"model.dropout": number / 9, LONG: LONG}, seconds=9.0,
                     curve=[(1, 3.0 - number), (2, 2.5 - number)], state="finished", reason=LONG)
        for number in range(3)
    ]  # fmt: skip
    space = [Setting("model.dropout", "uniform(0, 1)", "0.1", 0.5), Setting(LONG, LONG, LONG)]
    search = SearchPage(title=LONG, metric="loss", mode="min", space=space, outcome=pairs, commands=pairs)
    write_search_page(folder / "search.html", trials, search)
    write_gallery(folder / "empty.html", [], GalleryPage(title="Nothing"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    write_pages(folder)
    return folder


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.mark.parametrize("name", ["gallery.html", "model.html", "search.html", "empty.html"])
def test_nothing_is_cut_off_and_no_script_fails(browser, folder, name):
    for width in (1280, 400):
        for theme in ("light", "dark"):
            browser.open(folder / name, width=width, theme=theme)
            assert browser.run("document.documentElement.scrollWidth <= innerWidth"), browser.run(TOO_WIDE)
            assert browser.run(TOO_WIDE) == []
    assert browser.errors == []


def test_the_theme_is_that_of_the_system(browser, folder):
    colours = [
        browser.open(folder / "gallery.html", theme=theme).run("getComputedStyle(document.body).backgroundColor")
        for theme in ("light", "dark")
    ]
    assert colours == ["rgb(246, 247, 249)", "rgb(16, 18, 23)"]


@pytest.mark.parametrize(
    ("order", "names"),
    [("number up", "abc"), ("0 up", "acb"), ("0 down", "bca"), ("1 down", "bca"), ("2 up", "bca"), ("2 down", "acb")],
)
def test_a_gallery_is_sorted(browser, folder, order, names):
    browser.open(folder / "gallery.html").run(CHOOSE.format("order", order, "change"))
    assert browser.run(SHOWN) == [*names]


@pytest.mark.parametrize(
    ("field", "value", "names", "count"),
    [
        ("search", "caption OF b", "b", "1 of 3 shown"),
        ("search", "red dog", "abc", "3 shown"),
        ("search", "nothing like it", "", "0 of 3 shown"),
        ("only", "false", "a", "1 of 3 shown"),
        ("only", "true", "bc", "2 of 3 shown"),
    ],
)
def test_a_gallery_is_searched_and_filtered(browser, folder, field, value, names, count):
    browser.open(folder / "gallery.html").run(CHOOSE.format(field, value, "input" if field == "search" else "change"))
    assert browser.run(SHOWN) == [*names]
    assert browser.run("document.querySelector('.toolbar output').textContent") == count
    assert browser.run("document.querySelector('.empty').hidden") is bool(names)


def test_the_slider_shows_the_captions_of_each_validation(browser, folder):
    browser.open(folder / "model.html")
    caption = "document.querySelector('[data-captions] .predicted').textContent"
    assert browser.run(caption) == "at last"
    browser.run(SLIDE)
    assert browser.run(caption) == "at first"
    assert browser.run("document.querySelector('.slider output').textContent") == "step 10 · validation 1 of 2"


def test_a_chart_shows_the_values_under_the_pointer(browser, folder):
    browser.open(folder / "model.html")
    x, y, width, height = browser.run(PLACE)
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + width - 3, y=y + height / 2)
    tip = browser.run("document.querySelector('.tip').innerText.split(/\\n+/)")
    assert tip == ["epoch 9.9 · step 99", "training", "1.525", "validation", "2 (1.5 to 2.5)"]
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + width - 3, y=1)
    assert browser.run("document.querySelectorAll('.tip, .cursor').length") == 0


def test_a_trials_line_and_row_are_marked_together(browser, folder):
    browser.open(folder / "search.html")
    browser.run("document.querySelector('tr[data-trial=trial-1]').dispatchEvent(new Event('pointerenter'))")
    assert browser.run("[...document.querySelectorAll('.on')].map(one => one.tagName)") == ["path", "path", "TR"]


def test_markup_in_names_stays_text_and_another_script_would_not_run(browser, folder, tmp_path):
    browser.open(folder / "gallery.html")
    assert browser.run("document.scripts.length") == 1
    page = (folder / "gallery.html").read_text(encoding="utf-8")
    injected = tmp_path / "injected.html"
    injected.write_text(page.replace("</main>", "<script>document.title = 'ran'</script></main>"), encoding="utf-8")
    assert browser.open(injected).run("document.title") != "ran"
    browser.errors.clear()
