import pytest

from captioning.pages.axes import axis_of
from tests.support.case_table import each_case


@each_case(
    ("values", "options", "ends", "texts"),
    [
        ([0.3, 3.7], {}, (0, 4), ["0", "1", "2", "3", "4"]),
        ([0.41, 0.44], {}, (0.41, 0.44), ["0.41", "0.42", "0.43", "0.44"]),
        ([0.3, 3.7], {"is_tight": True}, (0.3, 3.7), ["1", "2", "3"]),
        ([2.0], {}, (1.8, 2.2), ["1.8", "1.9", "2.0", "2.1", "2.2"]),
        ([0.0], {}, (-1, 1), ["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
        ([7.0], {"is_tight": True}, (7, 7), ["7"]),
        ([0, 4e-4], {}, (0, 4e-4), ["0", "1e-4", "2e-4", "3e-4", "4e-4"]),
        ([0, 90_000], {}, (0, 100_000), ["0", "20k", "40k", "60k", "80k", "100k"]),
        ([1e-4, 1e-2], {"is_log": True, "is_tight": True}, (1e-4, 1e-2), ["1e-4", "3e-4", "0.001", "0.003", "0.01"]),
        ([0, 1000], {"is_log": True, "is_tight": True}, (0, 1000), ["0", "200", "400", "600", "800", "1000"]),
        ([1e-30, 1e30], {"is_log": True, "is_tight": True}, (1e-30, 1e30), None),
        ([-2.5, 2.5], {}, (-3, 3), ["-3", "-2", "-1", "0", "1", "2", "3"]),
    ],
)  # fmt: skip
def test_an_axis_holds_all_values_and_has_few_round_ticks(values, options, ends, texts):
    axis = axis_of(values, **options)
    assert (axis.low, axis.high) == pytest.approx(ends)
    labels = axis.labels()
    assert len(labels) <= 8
    assert all(-1e-9 <= share <= 1 + 1e-9 for share, _ in labels)
    assert texts is None or [text for _, text in labels] == texts


def test_a_share_follows_the_scale():
    assert axis_of([0, 4]).share(1) == 0.25
    assert axis_of([1, 100], is_log=True, is_tight=True).share(10) == pytest.approx(0.5)
    assert axis_of([7], is_tight=True).share(7) == 0.5
