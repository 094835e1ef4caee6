from cluster.coordination.restart_policy import AttemptHistory, Failure, cause_of, deaths_of
from tests.support.case_table import each_case


def failure(reason, *, rank=0, step=4, **changes):
    return Failure(rank, step, step * 8, reason, **changes)


def death(rank=1, step=4, reason="Worker unexpectedly exits"):
    return failure(reason, rank=rank, step=step, is_death=True)


def history(max_restarts=3, max_preemptions=2):
    return AttemptHistory(max_restarts, max_preemptions)


def reasons(many, *failures, between=lambda kept: None):
    """Return, for each of these failures in turn, the rule that ended the run; None where none did."""
    said = []
    for one in failures:
        said.append(many.end("crash", [one]))
        between(many)
    return [final.why if final else None for final in said]


@each_case(
    ("failures", "reason"),
    [
        ([failure("RuntimeError: Connection closed by peer"), failure("KeyError: 'x'", rank=1)], "KeyError: 'x'"),
        ([failure("RuntimeError: gloo"), death(reason="is dead")], "is dead"),
        ([death(reason="is dead"), failure("KeyError: 'x'")], "KeyError: 'x'"),
        ([failure("RuntimeError: Broken pipe")], "RuntimeError: Broken pipe"),  # the only report
        ([failure("FloatingPointError: nan", is_agreed=True), failure("OSError: x")], "FloatingPointError: nan"),
    ],
)
def test_the_cause_is_what_a_rank_did_itself_before_what_came_of_it(failures, reason):
    assert cause_of(failures).reason == reason


def test_nothing_has_no_cause():
    assert cause_of([]) is None


def test_what_every_rank_fails_by_alike_ends_the_run():
    assert reasons(history(), failure("nan", is_agreed=True)) == ["every worker failed with the same error"]


@each_case(
    ("first", "second", "ends"),
    [
        (failure("ValueError: at 0x7f12"), failure("ValueError: at 0x8a34"), True),  # an address is no difference
        (failure("ValueError: x", rank=0), failure("ValueError: x", rank=1), True),
        (failure("ValueError: x", step=4), failure("ValueError: x", step=5), False),
        (failure("ValueError: x"), failure("ValueError: y"), False),
        (death(), death(), False),  # kills may hit the same step twice
        # When a node is lost, the reports of the other ranks may be all there is.
        (failure("RuntimeError: gloo: Connection closed"), failure("RuntimeError: gloo: Connection closed"), False),
        *[
            (failure(f"RuntimeError: DataLoader worker (pid(s) {pid}) {how}"),) * 2 + (False,)
            for pid, how in ((7, "exited unexpectedly"), (8, "is killed by signal: Killed. "))
        ],
        (death(reason="killed: out of memory"), death(reason="killed: out of memory"), True),
    ],
)
def test_the_same_failure_at_the_same_step_is_no_accident(first, second, ends):
    assert bool(reasons(history(), first, second)[1]) == ends


def test_the_same_death_at_the_same_step_is_an_accident_twice():
    assert reasons(history(9), death(), death(), death()) == [
        None, None, "the same failure occurred 3 times in a row at the same step",
    ]  # fmt: skip


def test_deaths_before_the_first_step_are_accidents_however_often():
    many = history(9)
    assert [many.end("crash", [death()], has_trained=False) for _ in range(5)] == [None] * 5


def test_errors_before_the_first_step_are_no_accident():
    many = history(9)
    assert [bool(many.end("crash", [failure("ImportError: x")], has_trained=False)) for _ in range(2)] == [False, True]


def test_failures_in_a_row_use_up_the_budget():
    said = reasons(history(2), *(death(step=step) for step in range(3)))
    expected = "training failed 3 times without a new checkpoint (--cluster.max-restarts)"
    assert said == [None, None, expected]


def test_a_checkpoint_in_between_starts_the_budget_anew():
    said = reasons(history(1), *(death(step=step) for step in range(9)), between=AttemptHistory.note_checkpoint)
    assert said == [None] * 9


def test_no_restart_is_borne_if_none_is_allowed():
    said = reasons(history(0), death())
    assert said == ["training failed once without a new checkpoint (--cluster.max-restarts)"]


def test_preemptions_have_a_budget_of_their_own():
    many = history(max_restarts=0, max_preemptions=2)
    said = [many.end("preemption", [death()]) for _ in range(3)]
    assert (said[:2], said[2].why) == ([None, None], "nodes were preempted 3 times (--cluster.max-preemptions)")


def test_resizes_are_free():
    many = history(max_restarts=0)
    assert [many.end("resize", []) for _ in range(9)] == [None] * 9


def test_a_crash_of_which_nobody_tells_is_counted():
    assert [bool(many) for many in (history(0).end("crash", []), history(1).end("crash", []))] == [True, False]


@each_case(
    ("text", "reason"),
    [
        ("A worker health check failed.\nWorker info\nWorker exit detail: died", "Worker exit detail: died"),
        ("Task failed\nexit detail\nkilled: the node ran out of memory", "killed: the node ran out of memory"),
        ("something", "something"),
        ("", "died"),
    ],
)
def test_a_death_is_told_by_its_most_telling_line(text, reason):
    assert deaths_of({1: text}, step=3, batch_size=8) == [Failure(1, 3, 24, reason, is_death=True)]
