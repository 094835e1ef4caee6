import csv
import io
import math

import pytest

from captioning.pages.search_page import SearchPage, Setting, trials_csv, write_search_page
from captioning.pages.trial_summary import TrialSummary
from tests.support.case_table import each_case
from tests.support.html import HOSTILE, Page

NAN = math.nan


def trial(name="t", scores=(), **changes):
    """Return a trial with one score per epoch."""
    given = {
        "name": name,
        "point": {"model.dropout": 0.1},
        "curve": [*enumerate(scores, start=1)],
        "state": "finished",
        "seconds": 60.0,
    }
    return TrialSummary(**given | changes)


def failed(name="f", scores=(), reason="no memory", **changes):
    return trial(name, scores, state="failed", reason=reason, **changes)


@pytest.fixture
def page_of(tmp_path):
    def write(*trials, title="Search", metric="loss", mode="min", **options):
        page = SearchPage(title=title, metric=metric, mode=mode, **options)
        write_search_page(tmp_path / "page.html", trials, page)
        return Page(tmp_path / "page.html")

    return write


def csv_rows(*trials, mode="min"):
    return list(csv.DictReader(io.StringIO(trials_csv(trials, mode=mode))))


def charts(page):
    return [one["aria-label"] for one in page.all("div") + page.all("svg") if "aria-label" in one]


def test_a_page_holds_the_lines_of_the_trials_and_two_charts(page_of):
    page = page_of(trial("a", [2.0, 1.5]), trial("b", [1.8], state="stopped"), unit="nats")
    assert charts(page) == [
        "Loss of each trial (nats); ",
        "Best loss so far (nats); 2 at epochs of all trials 1, 1.5 at 3",
        "Settings and loss of 2 trials, one line per trial",
    ]


@pytest.mark.parametrize(
    ("mode", "names"),
    [("min", ["low", "high", "nan", "none", "broken"]), ("max", ["high", "low", "nan", "none", "broken"])],
)
def test_trials_are_ranked_by_their_best_score_and_the_failed_come_last(mode, names):
    trials = [
        failed("broken", [0.5]),
        trial("nan", [NAN, math.inf]),
        trial("low", [1.0, 2.0]),
        trial("none", state="running"),
        trial("high", [NAN, 3.0, 1.5]),
    ]
    rows = csv_rows(*trials, mode=mode)
    assert [row["name"] for row in rows] == names
    assert [row["rank"] for row in rows] == ["1", "2", "", "", ""]


def test_the_page_shows_each_trial_with_its_values(page_of):
    point = {"model.dropout": 0.123456, "training.flip": True, "model.trainable_from": None, "model.pooling": "mean"}
    page = page_of(
        trial("one", [2.0, 1.23456], point=point, seconds=5400.0),
        trial("two", [], point={"model.dropout": 0.5}, seconds=9.4, state="running"),
    )
    cells = [text for text in page.texts[page.texts.index("best score") :] if text]
    start = cells.index("one")
    assert cells[start : start + 10] == [
        "one", "1", "finished", "2", "1.235", "1.5 h", "0.1235", "true", "null", "mean",
    ]  # fmt: skip
    start = cells.index("two")
    assert cells[start:] == ["two", "running", "0", "9 s", "0.5"]


def test_only_a_search_with_failed_trials_has_reasons(page_of):
    assert "no memory" in page_of(trial("a"), failed()).texts
    assert "reason" not in page_of(trial("a")).texts


def test_a_table_for_machines_has_numbers_in_full():
    [first, last] = csv_rows(
        trial("a", [1 / 3], point={"x": 1e-4, "y": None, "z": "a,b\n"}, seconds=1.25),
        failed("b", reason='it said "no",\nloudly', point={"x": 2, "w": False}),
    )
    assert first == {
        "rank": "1", "name": "a", "state": "finished", "epochs": "1", "best_score": "0.3333333333333333",
        "seconds": "1.25", "x": "0.0001", "y": "null", "z": "a,b\n", "w": "", "reason": "",
    }  # fmt: skip
    assert (last["x"], last["y"], last["w"], last["reason"]) == ("2", "", "false", 'it said "no",\nloudly')
    assert (last["best_score"], last["epochs"]) == ("", "0")


def test_a_table_of_no_trials_has_a_heading_alone():
    assert trials_csv([], mode="min") == "rank,name,state,epochs,best_score,seconds,reason\n"


@each_case(
    "trials",
    [
        [],
        [failed("a", [1.0]), failed("b")],
        [trial("a", state="running")],
        [trial("a", [NAN, math.inf])],
    ],
)
def test_without_a_score_there_are_no_charts(page_of, trials):
    page = page_of(*trials)
    assert not charts(page)
    assert "No trial has a score yet." in page.texts


@each_case(
    ("trials", "options"),
    [
        ([trial("alone", [1.0])], {}),
        ([trial("flat", [0.0, 0.0])], {"mode": "max"}),
        ([trial("no parameter", [1.0], point={})], {}),
        ([trial("a", [1.0, NAN, 2.0]), trial("b", [NAN, math.inf, 1.5])], {}),
        ([trial("diverged", [1e30, math.inf]), trial("b", [1.0])], {}),
        ([trial("low", [1e-9]), trial("below", [-1.0]), trial("high", [0.9])], {"mode": "max"}),
        ([trial("a", [1.0], point={"x": 0}), trial("b", [1.0], point={"x": 1000})], {"log_keys": ["x"]}),
        ([trial("a", [1.0], point={"x": 1}), trial("b", [1.0], point={"y": "z"})], {}),
        ([trial("$x$ 日本", [1.0], point={"$y_1$": "$\\frac{", "k" * 99: "v" * 99})], {"metric": "$m$" * 40}),
        ([trial("a", [1.0], state="running"), failed("b", [0.5])], {}),
    ],
)
def test_every_search_with_a_score_can_be_drawn(page_of, trials, options):
    page = page_of(*trials, **options)
    assert len(charts(page)) == (3 if trials[0].point else 2)


def test_hundreds_of_trials_make_one_page(page_of):
    trials = [
        trial(f"t{number}", [3 - number / 100 - epoch / 9 for epoch in range(1 + number % 9)], point={"x": number})
        for number in range(200)
    ]
    assert len(page_of(*trials).all("tr")) == 201


def test_hostile_text_stays_text_everywhere(page_of):
    pairs = [(HOSTILE, HOSTILE)]
    page = page_of(
        trial(HOSTILE, [1.0], point={HOSTILE: HOSTILE}, link=HOSTILE),
        failed(HOSTILE, reason=HOSTILE),
        title=HOSTILE, metric=HOSTILE, unit=HOSTILE, lead=HOSTILE, outcome=pairs, commands=pairs,
        space=[Setting(HOSTILE, HOSTILE, HOSTILE, 0.5)], best_config=HOSTILE, links=pairs,
    )  # fmt: skip
    page.assert_only_own_script()
    assert not page.all("a")
    assert sum(text.count(HOSTILE) for text in page.texts) > 20


def test_the_page_needs_nothing_beside_it_and_links_to_the_web_alone(page_of):
    address = "https://mlflow/#/runs/1"
    page = page_of(
        trial("a", [1.0], link=address), trial("b", [1.0], link="javascript:alert(1)"), links=[("MLflow", address)]
    )
    assert [one["href"] for one in page.all("a")] == [address, address]
    assert not [attributes for _, attributes in page.tags if {"src", "srcset"} & set(attributes)]
    assert not page.all("link")
    assert {"name": "color-scheme", "content": "light dark"} in page.all("meta")


def test_the_space_stands_apart_from_the_outcome_with_the_importance_of_each_setting(page_of):
    space = [Setting("model.dropout", "uniform(0, 0.5)", "0.1", 0.75), Setting("training.batch_size", "8", "8")]
    page = page_of(trial("a", [1.0]), space=space, outcome=[("best trial", "a")], commands=[("Train", "captioning x")])
    start = page.texts.index("Search space")
    cells = [text for text in page.texts[start:] if text]
    assert cells[5:13] == ["model.", "dropout", "uniform(0, 0.5)", "0.1", "75 %", "training.", "batch_size", "8"]
    assert page.texts.index("best trial") < page.texts.index("captioning x") < start


def test_the_best_configuration_is_folded_away_and_absent_without_one(page_of):
    assert not page_of(trial("a")).all("details")
    page = page_of(trial("a"), best_config="model:\n  dropout: 0.1\n")
    assert page.all("details") == [{}]
    assert "model:\n  dropout: 0.1" in page.texts


def test_the_same_input_gives_the_same_bytes(tmp_path):
    for name in ("one.html", "two.html"):
        trials = [trial("a", [2.0, 1.0]), trial("b", [1.5], point={"model.dropout": 0.4})]
        write_search_page(tmp_path / name, trials, SearchPage(title="x", metric="loss", mode="min"))
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
