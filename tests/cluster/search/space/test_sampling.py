import json
import math
from itertools import count, takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.config import TrainRun
from cluster.search.space.sampling import Observation, check_sampler, suggest
from cluster.search.space.space import apply_point, parse_space
from tests.support.case_table import each_case

BASE = TrainRun()
RATE, UNITS, DROPOUT, SEED = "optimizer.learning_rate", "model.hidden_size", "model.dropout", "training.seed"
WIDE = {
    RATE: "loguniform(1e-4, 1e-2)",
    DROPOUT: "uniform(0, 0.5)",
    UNITS: "logint(8, 1024)",
    SEED: "int(-3, 3)",
    "model.trainable_from": "choice([null, 'layer4', 'all'])",
    "training.flip": "choice([true, false])",
    "training.batch_size": 16,
}
SAMPLERS = ("random", "tpe")


def space_of(**changes):
    return parse_space(WIDE | changes, BASE)


def point_at(space, number, observations=(), *, sampler="random", seed=0, mode="min"):
    return suggest(space, number, observations, sampler=sampler, seed=seed, mode=mode)


def history(space, num_trials, score, *, mode="min", seed=0):
    """Return the points that TPE suggests one after another."""
    observations = []
    for number in range(num_trials):
        point = point_at(space, number, observations, sampler="tpe", seed=seed, mode=mode)
        observations.append(Observation(number, point, score(point)))
    return observations


def off_target(point):
    """Return the distance of a point from the best one: learning rate 1e-3, no dropout."""
    return abs(math.log10(point[RATE]) + 3) + point[DROPOUT]


@pytest.mark.parametrize("sampler", SAMPLERS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**63), num_tried=st.sampled_from([0, 3, 14]))
def test_every_point_is_in_the_space_and_survives_json(sampler, seed, num_tried):
    space = space_of()
    observations = [Observation(number, point_at(space, number), float(number)) for number in range(num_tried)]
    point = point_at(space, num_tried, observations, sampler=sampler, seed=seed)
    assert list(point) == list(WIDE)
    assert json.loads(json.dumps(point)) == point
    for parameter in space.parameters:
        value = point[parameter.key]
        if parameter.values is None:
            assert type(value) is float
            assert parameter.arguments[0] <= value <= parameter.arguments[1]
        else:
            assert (type(value), value) in [(type(one), one) for one in parameter.values]
    apply_point(BASE, point)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_arguments_give_the_same_point_and_others_another(sampler):
    space = space_of()
    observations = [Observation(number, point_at(space, number), float(number)) for number in range(12)]
    first = point_at(space, 12, observations, sampler=sampler)
    assert point_at(space, 12, observations[::-1], sampler=sampler) == first
    assert point_at(space, 13, observations, sampler=sampler) != first
    assert point_at(space, 12, observations, sampler=sampler, seed=1) != first


def test_a_random_value_depends_on_nothing_but_seed_number_and_key():
    alone = parse_space({DROPOUT: "uniform(0, 0.5)"}, BASE)
    assert point_at(alone, 5)[DROPOUT] == point_at(space_of(), 5)[DROPOUT] == 0.11873734261603319


@each_case(
    ("key", "text", "middle"),
    [
        (RATE, "loguniform(1e-4, 1e-2)", 1e-3),
        (DROPOUT, "uniform(0, 0.5)", 0.25),
        (SEED, "int(0, 99)", 49.5),
        (UNITS, "logint(1, 10000)", 100),
    ],
)
def test_random_values_fill_their_scale(key, text, middle):
    # The second key makes the space infinite, so that a key with few values can be drawn 1000 times.
    space = parse_space({key: text, "optimizer.weight_decay": "uniform(0, 1)"}, BASE)
    values = [point_at(space, number)[key] for number in range(1000)]
    assert 450 < sum(value < middle for value in values) < 550
    assert len(set(values)) > 99


def test_random_draws_every_point_of_a_space_that_ends_once():
    space = parse_space({UNITS: "choice([8, 16, 32])", "training.flip": "choice([true, false])"}, BASE)
    points = [point_at(space, number) for number in range(7)]
    assert (len({tuple(point.values()) for point in points[:6]}), points[6]) == (6, None)


def test_random_choices_and_whole_numbers_are_equally_frequent_up_to_both_ends():
    space = space_of()
    points = [point_at(space, number) for number in range(2100)]
    for key, num_values in ((SEED, 7), ("model.trainable_from", 3), ("training.flip", 2)):
        values = [point[key] for point in points]
        counts = [values.count(value) for value in set(values)]
        assert len(counts) == num_values
        assert all(0.8 < one * num_values / 2100 < 1.2 for one in counts)


def test_a_grid_is_the_product_in_order_and_then_ends():
    space = parse_space(
        {UNITS: "choice([8, 4])", "training.batch_size": 16, SEED: "int(1, 3)", DROPOUT: "uniform(0.5, 0.5)"}, BASE
    )
    points = list(takewhile(bool, (point_at(space, number, sampler="grid") for number in count())))
    assert [(point[UNITS], point[SEED]) for point in points] == [(8, 1), (8, 2), (8, 3), (4, 1), (4, 2), (4, 3)]
    assert len(points) == space.num_points
    assert points[0] == {UNITS: 8, "training.batch_size": 16, SEED: 1, DROPOUT: 0.5}
    assert list(points[0]) == list(space.description())
    assert point_at(space, 10**6, sampler="grid") is None


@pytest.mark.parametrize("mode", ["min", "max"])
def test_tpe_comes_closer_to_the_better_score_than_chance(mode):
    space = parse_space({RATE: WIDE[RATE], DROPOUT: WIDE[DROPOUT]}, BASE)
    sign = 1 if mode == "min" else -1
    observations = history(space, 40, lambda point: sign * off_target(point), mode=mode)
    chance = [off_target(point_at(space, number)) for number in range(20)]
    assert sum(off_target(trial.point) for trial in observations[20:]) < 0.6 * sum(chance)


def test_tpe_keeps_away_from_points_without_a_score():
    space = parse_space({RATE: WIDE[RATE], DROPOUT: WIDE[DROPOUT]}, BASE)
    done = history(space, 20, off_target)
    best = min(done, key=lambda trial: trial.score)
    running = [Observation(20 + number, best.point, None) for number in range(8)]

    def distance(observations):
        points = [point_at(space, number, observations, sampler="tpe") for number in range(30, 60)]
        return sum(abs(math.log(point[RATE] / best.point[RATE])) for point in points)

    assert distance(done + running) > 1.2 * distance(done)


@pytest.mark.parametrize("score", [None, math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_none(score):
    space = space_of()
    observations = [Observation(number, point_at(space, number), float(number)) for number in range(12)]
    bad = Observation(12, point_at(space, 12), score)
    assert point_at(space, 13, [*observations, bad], sampler="tpe") == point_at(
        space, 13, [*observations, bad._replace(score=None)], sampler="tpe"
    )


def test_tpe_takes_a_space_with_nothing_to_choose():
    space = parse_space({UNITS: 8, DROPOUT: 0.5}, BASE)
    observations = [Observation(number, {UNITS: 8, DROPOUT: 0.5}, 1.0) for number in range(12)]
    assert point_at(space, 12, observations, sampler="tpe") == {UNITS: 8, DROPOUT: 0.5}


def test_tpe_says_nothing(capfd):
    history(space_of(), 12, off_target)
    assert capfd.readouterr() == ("", "")


def test_a_search_of_hundreds_of_trials_goes_on_as_it_would_have():
    space = space_of()
    observations = [Observation(number, point_at(space, number), float(number % 17)) for number in range(300)]
    ahead = point_at(space, 300, observations, sampler="tpe")
    read_back = [Observation(*json.loads(json.dumps(one))) for one in observations]
    assert point_at(space, 300, read_back, sampler="tpe") == ahead


@each_case(
    ("content", "sampler", "num_trials", "message"),
    [
        (WIDE, "grid", 3, r"a grid has no steps for optimizer\.learning_rate loguniform\(.*, model\.dropout uniform\("),
        (WIDE, "grid", 3, r"; write choice\(\[A, B\]\), or use --sampler random or tpe"),
        (WIDE, "tpe", 0, "a search needs at least 1 trial, not 0; use 1 or more"),
    ],
)
def test_a_sampler_that_cannot_walk_the_space_is_refused(content, sampler, num_trials, message):
    with pytest.raises(ValueError, match=message):
        check_sampler(parse_space(content, BASE), sampler, num_trials)


@each_case(("content", "sampler"), [(WIDE, "tpe"), (WIDE, "random"), ({UNITS: "int(1, 2)"}, "grid")])
def test_a_sampler_that_can_is_taken_even_if_the_grid_ends_early(content, sampler):
    check_sampler(parse_space(content, BASE), sampler, 10)


def test_a_grid_of_an_endless_space_is_refused():
    with pytest.raises(ValueError, match=r"a grid has no steps for model\.dropout uniform\(0\.0, 0\.5\); use another"):
        point_at(space_of(), 0, sampler="grid")
