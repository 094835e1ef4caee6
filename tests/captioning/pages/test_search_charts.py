import math

from captioning.pages.search_charts import best_against_cost
from captioning.pages.trial_summary import TrialSummary
from tests.support.case_table import each_case

NAN = math.nan


def trial(*curve, state="finished", reported=()):
    return TrialSummary(name="t", point={}, curve=curve, state=state, seconds=1.0, reported=reported)


@each_case(
    ("trials", "mode", "points"),
    [
        ([trial((1, 3.0), (3, 2.0)), trial((2, 2.5))], "min", [(1, 3.0), (3, 2.0), (5, 2.0)]),
        ([trial((1, 3.0), (3, 2.0)), trial((2, 2.5))], "max", [(1, 3.0), (3, 3.0), (5, 3.0)]),
        # In the order of the reports, across trials.
        ([trial((1, 3.0), (2, 1.0), reported=(10, 30)), trial((1, 2.0), reported=(20,))], "min",
         [(1, 3.0), (2, 2.0), (3, 1.0)]),
        # In the order of the trials if a time is missing.
        ([trial((1, 3.0), (2, 1.0), reported=(10, 30)), trial((1, 2.0))], "min", [(1, 3.0), (2, 1.0), (3, 1.0)]),
        # The epochs of a failed trial count, but its score does not.
        ([trial((4, 0.1), state="failed"), trial((1, 3.0))], "min", [(4, NAN), (5, 3.0)]),
        ([trial((1, NAN), (2, math.inf), (3, 2.0))], "min", [(1, NAN), (2, NAN), (3, 2.0)]),
        ([trial((1, 2.0)), trial((1, NAN))], "min", [(1, 2.0), (2, 2.0)]),
        ([trial((2, 2.0), (1, 3.0))], "min", [(2, 2.0), (2, 2.0)]),  # a cost is never negative
        ([], "min", []),
    ],
)  # fmt: skip
def test_the_best_score_is_told_against_what_all_trials_cost(trials, mode, points):
    assert [*map(repr, map(tuple, best_against_cost(trials, mode)))] == [repr((float(x), y)) for x, y in points]
