from captioning.evaluation.health import IMAGE_GAIN, LOSS, UNKNOWN_SHARE, Health, changes, scores_of
from tests.support.case_table import each_case

GOOD = {
    LOSS: 2.0, IMAGE_GAIN: 0.4, UNKNOWN_SHARE: 0.03, "health_captions": 500.0, "health_top_caption_share": 0.1,
    "health_different_words": 90.0, "health_repeated_share": 0.02, "health_empty_share": 0.0,
}  # fmt: skip


def health_of(*validations):
    health = Health()
    for number, metrics in enumerate(validations, start=1):
        health = health.add(100 * number, GOOD | metrics)
    return health


@each_case(
    ("metrics", "told"),
    [
        ({"health_top_caption_share": 0.93}, "says one sentence of 93 % of the pictures since step 1,100"),
        (
            {"health_top_caption_share": 0.9375, "health_captions": 16.0},
            "says one sentence of 15 of 16 pictures since step 1,100",
        ),
        (
            {IMAGE_GAIN: -0.001},
            "scores captions as well with other pictures (-0.001 nats/word), so it does not see them since step 1,100",
        ),
        ({"health_empty_share": 0.4}, "says nothing of 40 % of the pictures since step 1,100"),
        ({"health_repeated_share": 0.9}, "repeats words in the captions of 90 % of the pictures since step 1,100"),
        ({"health_different_words": 9.0}, "uses only 9 different words since step 1,100"),
        ({UNKNOWN_SHARE: 0.45}, "knows only 55 % of the words of people's captions since step 1,100"),
        ({LOSS: 2.4}, "has a validation loss of 2.400 nats/word, 20% above its lowest since step 1,100"),
    ],
)
def test_what_two_validations_in_a_row_find_is_told_with_its_first_step(metrics, told):
    before = Health().add(1000, GOOD)
    once = before.add(1100, GOOD | metrics)
    twice = once.add(1200, GOOD | metrics)
    assert (list(once.told().values()), list(twice.told().values())) == ([], [told])
    assert (changes(once, twice), changes(twice, twice)) == ([f"warning: the model {told}"], [])


def test_a_fault_that_passes_is_told_as_past_and_begins_anew():
    bad = {"health_empty_share": 0.5}
    healthy, again = health_of(bad, bad, {}), health_of(bad, bad, {}, bad, bad)
    assert changes(health_of(bad, bad), healthy) == [
        "no longer so: the model says nothing of 50 % of the pictures since step 100"
    ]
    assert list(again.told().values()) == ["says nothing of 50 % of the pictures since step 400"]


def test_repetitions_are_no_fault_while_the_loss_falls_fast():
    beginning = [{"health_repeated_share": 0.9, LOSS: loss} for loss in (3.0, 2.7, 2.4, 2.1)]
    assert (health_of(*beginning).told(), len(health_of(*beginning, *beginning[-1:] * 2).told())) == ({}, 1)


def test_a_validation_that_is_repeated_after_a_restart_counts_once():
    bad = GOOD | {"health_empty_share": 0.5}
    assert not Health().add(100, bad).add(100, bad).told()


@each_case("metrics", [{}, {LOSS: 2.0}, {LOSS: float("nan")}])
def test_what_was_not_measured_is_no_fault(metrics):
    assert Health().add(100, metrics).add(200, metrics).told() == {}


def test_scores_of_a_checkpoint_are_told_apart_from_its_health():
    assert scores_of(GOOD) == {LOSS: 2.0}


# Measured at the first validations, one an epoch, of runs on scenes and, where it says so, on 600 photographs: loss,
# image gain, share of the most frequent caption, different words, share of captions with repetitions, of empty ones.
GOOD_RUNS = [
    # scenes
    "2.009 0.3509 0.11 14 0.91 0; 0.772 0.4428 0.24 19 0 0; 0.697 0.444 0.1 23 0 0; "
    "0.66 0.5515 0.08 27 0 0; 0.637 0.5805 0.06 26 0 0; 0.631 0.5866 0.07 29 0 0",
    # scenes
    "2.644 0.2931 0.21 10 1 0; 1.252 0.5486 0.16 22 0.1 0; 0.759 0.6086 0.16 24 0 0; "
    "0.671 0.6823 0.11 26 0 0; 0.639 0.7327 0.1 27 0 0; 0.632 0.7243 0.05 27 0 0",
    # scenes
    "2.769 0.3748 0.09 9 1 0; 1.7 0.6727 0.11 21 0.36 0; 0.89 0.7071 0.15 22 0 0; "
    "0.702 0.7914 0.17 29 0 0; 0.665 0.7597 0.06 27 0 0; 0.654 0.7863 0.08 26 0 0",
    # scenes
    "0.93 0.4129 0.23 23 0 0; 0.716 0.3648 0.16 25 0 0; 0.656 0.5159 0.08 29 0 0; "
    "0.613 0.6434 0.06 27 0 0; 0.584 0.7266 0.05 30 0 0; 0.579 0.7409 0.05 29 0 0",
    # scenes
    "2.759 0.8225 0.52 9 0.92 0.04; 2.585 1.0182 0.23 19 0.9 0.03; 2.332 1.238 0.06 23 0.94 0; "
    "1.916 1.569 0.05 24 0.82 0; 1.57 1.7266 0.03 28 0.49 0; 1.417 1.8126 0.03 27 0.43 0",
    # scenes
    "0.844 0.2932 0.36 18 0 0; 0.704 0.3488 0.2 22 0 0; 0.669 0.4122 0.09 23 0 0; 0.654 0.429 0.11 24 0 0",
    # scenes
    "2.752 0.173 0.15 8 1 0; 0.967 0.4145 0.24 18 0 0; 0.678 0.4595 0.15 22 0 0; "
    "0.616 0.6067 0.13 26 0 0; 0.6 0.6541 0.08 26 0 0; 0.595 0.6707 0.08 27 0 0",
    # scenes
    "1.647 0.2494 0.13 18 0.31 0; 0.78 0.3804 0.17 21 0 0; 0.689 0.4624 0.12 24 0 0; "
    "0.662 0.5211 0.12 26 0 0; 0.644 0.5758 0.07 26 0 0; 0.64 0.5889 0.07 26 0 0",
    # scenes
    "2.814 0.9178 0.35 17 0.83 0.16; 2.741 1.0051 0.4 15 0.92 0.05; 2.607 1.1036 0.21 20 0.77 0.07",
    # photographs
    "4.544 0.0376 0.67 1 1 0; 4.18 0.1166 0.67 4 1 0; 3.949 0.1545 0.51 4 0.99 0; "
    "3.804 0.1839 0.64 9 0.73 0; 3.748 0.194 0.48 14 0.76 0; 3.739 0.1958 0.5 14 0.77 0",
]
SPOILED_RUNS = [
    (
        "a learning rate 100 times too high",
        "blind",
        2,
        0.0,
        "1.921 0.002 0.93 5 0 0; 1.495 0.0003 0.48 12 0 0; 1.422 0.0002 0.99 11 0 0",
    ),
    (
        "constant features",
        "blind",
        2,
        0.0,
        "1.567 0 1 5 0 0; 0.865 0 1 8 0 0; 0.825 0 1 9 0 0",
    ),
    (
        "captions of other images",
        "blind",
        2,
        0.0,
        "1.852 0.0019 0.26 10 0.05 0; 0.858 0.0004 0.61 13 0 0; 0.827 0.0001 0.86 14 0 0",
    ),
    (
        "a learning rate 100 times too high, photographs",
        "blind",
        2,
        0.09,
        "4.619 0.0059 0.85 8 0 0; 4.102 0.0023 0.56 10 0.02 0; 3.992 0.0014 0.74 10 0 0",
    ),
    (
        "constant features, photographs",
        "same",
        2,
        0.09,
        "4.468 0 1 1 1 0; 4.152 0 1 3 1 0; 4.094 0 1 3 1 0",
    ),
    (
        "a vocabulary of five words",
        "unknown words",
        2,
        0.83,
        "0.597 0.0359 0.23 1 1 0; 0.447 0.1631 0.58 1 0.58 0.33; 0.407 0.1815 0.46 1 0.13 0.46",
    ),
    (
        "40 epochs on 60 images",
        "rising",
        5,
        0.0,
        "2.927 0.3336 0.13 18 0.81 0; 1.451 0.9543 0.08 26 0.51 0; 0.848 1.1899 0.06 28 0 0; "
        "0.935 1.3949 0.05 28 0 0; 1.049 1.593 0.04 27 0 0; 1.077 1.7213 0.06 30 0 0",
    ),
]


def first_told(text, unknown=0.0):
    """Return how many validations it takes until something is told, and what; 0 if nothing ever is."""
    names = (LOSS, IMAGE_GAIN, "health_top_caption_share", "health_different_words", "health_repeated_share")
    health = Health()
    for number, row in enumerate(text.split("; "), start=1):
        values = dict(zip((*names, "health_empty_share"), map(float, row.split()), strict=True))
        health = health.add(number, {"health_captions": 100.0, UNKNOWN_SHARE: unknown} | values)
        if told := health.told():
            return number, set(told)
    return 0, set()


@each_case("text", GOOD_RUNS)
def test_nothing_is_told_of_a_good_run(text):
    assert first_told(text) == (0, set())


@each_case(("what", "kind", "number", "unknown", "text"), SPOILED_RUNS)
def test_a_spoiled_run_is_found_at_its_second_bad_validation(what, kind, number, unknown, text):
    found, told = first_told(text, unknown)
    assert (found, kind in told) == (number, True), what
