import pytest

from cluster.search.importance import setting_importances
from cluster.search.space.config import TuneRun
from cluster.search.space.space import parse_space
from cluster.search.trials import Trial, TrialReport
from tests.support.case_table import each_case

SPACE = {"model.hidden_size": "choice([8, 16])", "model.dropout": "uniform(0, 0.5)", "training.batch_size": 32}


def trials(*scores):
    return [
        Trial(
            number=number, point={"model.hidden_size": (8, 16)[number % 2], "model.dropout": number / 20}, key="k",
            until=1, state="finished", reports=(TrialReport(8, 1, score, 2.0, 3000),),
        )
        for number, score in enumerate(scores)
    ]  # fmt: skip


def test_the_setting_that_decides_is_the_most_important():
    space = parse_space(SPACE, TuneRun(name="s"))
    found = setting_importances(space, trials(3.0, 2.0, 3.0, 2.0, 3.0, 2.0, 3.0, 2.0), "min")
    assert found is not None
    assert found["model.hidden_size"] > 0.8 > found["model.dropout"] >= 0
    assert sum(found.values()) == pytest.approx(1)


@each_case("scores", [[], [3.0, 2.0, 1.0], [2.0] * 8])
def test_few_trials_or_equal_scores_tell_no_importance(scores):
    assert setting_importances(parse_space(SPACE, TuneRun(name="s")), trials(*scores), "min") is None
