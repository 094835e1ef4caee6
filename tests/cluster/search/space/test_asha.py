import math

from cluster.search.space.asha import next_rung, rung_epochs
from cluster.search.space.config import SearchConfig
from cluster.search.trials import Trial, TrialReport
from tests.support.case_table import each_case

CONFIG = SearchConfig(max_epochs=9, reduction_factor=3)


def trial(number, *scores, until=1, state="stopped"):
    reports = tuple(TrialReport(epoch * 8, epoch, score, 1.0, 0) for epoch, score in enumerate(scores, start=1))
    return Trial(number=number, point={}, key="k", until=until, state=state, reports=reports)


@each_case(
    ("scheduler", "max_epochs", "factor", "rungs"),
    [
        ("asha", 9, 3, [1, 3, 9]),
        ("asha", 10, 4, [1, 4, 10]),  # the last rung is the end, wherever it lies
        ("asha", 1, 4, [1]),
        ("asha", 3, 4, [1, 3]),
        ("none", 9, 3, [9]),
    ],
)
def test_trials_are_compared_after_one_epoch_and_each_time_as_many_more(scheduler, max_epochs, factor, rungs):
    config = SearchConfig(scheduler=scheduler, max_epochs=max_epochs, reduction_factor=factor)
    assert rung_epochs(config) == rungs


def test_no_trial_is_promoted_before_a_rung_has_as_many_as_the_factor():
    assert next_rung([trial(0, 1.0), trial(1, 2.0)], CONFIG) is None


def test_the_best_of_as_many_trials_as_the_factor_is_promoted():
    assert next_rung([trial(0, 3.0), trial(1, 1.0), trial(2, 2.0)], CONFIG) == (1, 3)


def test_the_highest_score_is_promoted_where_it_is_the_best():
    config = SearchConfig(max_epochs=9, reduction_factor=3, metric="validation_cider_d")
    assert next_rung([trial(0, 3.0), trial(1, 1.0), trial(2, 2.0)], config) == (0, 3)


def test_a_promoted_trial_keeps_its_place_among_the_best_of_its_rung():
    """A third of three trials is one trial, even if that one is running already."""
    trials = [trial(0, 1.0, until=3, state="running"), trial(1, 2.0), trial(2, 3.0)]
    assert next_rung(trials, CONFIG) is None


def test_a_better_newcomer_is_promoted_too_once_there_is_a_place():
    ahead = [trial(0, 2.0, until=3, state="running")]
    others = [trial(number, 5.0) for number in range(1, 5)]
    assert next_rung([*ahead, *others, trial(5, 1.0)], CONFIG) == (5, 3)


def test_trials_of_higher_rungs_are_promoted_first():
    high = [trial(number, 5.0, 4.0, 3.0 + number, until=3) for number in range(3)]
    low = [trial(number, 1.0) for number in range(3, 9)]
    assert next_rung([*high, *low], CONFIG) == (0, 9)


def test_a_failed_trial_is_not_promoted_but_counts():
    trials = [trial(0, 1.0, state="failed"), *(trial(number, 2.0 + number) for number in range(1, 6))]
    assert next_rung(trials, CONFIG) == (1, 3)


def test_a_score_that_is_no_number_does_not_count():
    assert next_rung([trial(0, math.nan), trial(1, 1.0), trial(2, 2.0)], CONFIG) is None


def test_of_equal_trials_the_first_is_promoted():
    assert next_rung([trial(number, 1.0) for number in range(3)], CONFIG) == (0, 3)


def test_without_a_scheduler_no_trial_is_promoted():
    config = SearchConfig(max_epochs=9, scheduler="none")
    assert next_rung([trial(number, 1.0, until=9, state="finished") for number in range(9)], config) is None


def test_every_search_ends_and_its_best_trial_is_trained_to_the_end():
    trials = {number: trial(number, 10.0 - number) for number in range(27)}
    epochs = 27
    while found := next_rung(list(trials.values()), CONFIG):
        number, until = found
        before = trials[number]
        scores = [10.0 - number] * until
        trials[number] = trial(number, *scores, until=until, state="finished" if until == 9 else "stopped")
        epochs += until - before.until
    done = [number for number, one in trials.items() if one.state == "finished"]
    assert (done, epochs) == ([24, 25, 26], 27 + 9 * 2 + 3 * 6)
