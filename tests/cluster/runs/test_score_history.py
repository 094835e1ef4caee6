from cluster.runs.score_history import MOST_VALIDATIONS, VALIDATION_LOSS, ScoreHistory
from tests.support.case_table import each_case

CIDER_D = "validation_cider_d"


def history_of(best_by, *scores):
    history = ScoreHistory(best_by)
    for step, score in scores:
        history = history.add(step, score)
    return history


@each_case(
    ("best_by", "scores", "num_stale"),
    [
        (VALIDATION_LOSS, [(10, 3.0), (20, 2.0), (30, 2.5)], 1),
        (VALIDATION_LOSS, [(10, 3.0), (20, 3.0), (30, 3.0)], 2),  # an equal score is not a better one
        (CIDER_D, [(10, 0.1), (20, 0.3), (30, 0.2)], 1),
        (CIDER_D, [(30, 0.2), (10, 0.3), (20, 0.1)], 2),  # scored late, in any order
        (CIDER_D, [(10, 0.3), (20, 0.1), (20, 0.1)], 1),  # validated again after a restart
    ],
)
def test_training_stops_after_that_many_validations_without_a_better_score(best_by, scores, num_stale):
    history = history_of(best_by, *scores)
    assert (bool(history.stop_reason(num_stale)), history.stop_reason(num_stale + 1)) == (True, "")


def test_the_reason_names_the_score_and_its_step():
    reason = history_of(CIDER_D, (1200, 0.371), (1400, 0.3)).stop_reason(1)
    assert reason == "validation CIDEr-D not better than 0.371 of step 1,200 in 1 validation"


def test_training_never_stops_early_by_default():
    assert history_of(VALIDATION_LOSS, *((step, 1.0) for step in range(99))).stop_reason(0) == ""


def test_what_is_kept_does_not_grow_for_ever():
    history = history_of(VALIDATION_LOSS, *((step, 1.0) for step in range(MOST_VALIDATIONS + 9)))
    assert (len(history.scores), history.scores[0]) == (MOST_VALIDATIONS + 1, (0, 1.0))
