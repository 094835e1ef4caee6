import io
import logging

from cluster.training.progress import StepProgress
from jobs.console.progress_bars import CountLines, bar_text, counting, training_bar
from tests.support.case_table import each_case

STEP = StepProgress(
    step=5,
    num_steps=100,
    epoch=0.5,
    loss_nats=2.5,
    best_loss_nats=None,
    images_per_second=80.0,
    seconds_left=102.0,
    num_steps_redone=0,
)


def terminal_of(monkeypatch):
    """Make standard error a terminal, and return it; not a fixture, because pytest sets the stream before each test."""
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(stream)])
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return stream


def test_items_are_counted_by_a_line_every_ten_seconds(caplog):
    caplog.set_level(logging.INFO, "jobs")
    now = [0.0]
    lines = CountLines(clock=lambda: now[0])
    for second in range(0, 25):
        now[0] = float(second)
        lines.show("images", second, 100)
    told = [record.getMessage().partition(" ")[2] for record in caplog.records]
    assert told == ["images: 10 of 100, 1 min 30 s left", "images: 20 of 100, 1 min 20 s left"]


def test_bytes_are_logged_in_megabytes(caplog, log_lines):
    caplog.set_level(logging.INFO, "jobs")
    now = [0.0]
    lines = CountLines(unit=" MB", scale=1e6, clock=lambda: now[0])
    lines.show("fetch val", 0, 80_000_000)
    now[0] = 10.0
    lines.show("fetch val", 20_000_000, 80_000_000)
    assert log_lines()[0].endswith(" fetch val: 20 of 80 MB, 30 s left")


def test_a_terminal_shows_a_bar_of_items(monkeypatch):
    terminal = terminal_of(monkeypatch)
    with counting() as show:
        show("images", 3, 10)
    assert all(part in terminal.getvalue() for part in ("images", "3/10"))


def test_a_terminal_shows_one_bar_of_steps(monkeypatch):
    terminal = terminal_of(monkeypatch)
    with training_bar() as show:
        show(STEP)
        show(STEP._replace(step=6))
    assert all(part in terminal.getvalue() for part in ("6/100", "loss 2.500", "1 min 42 s left"))


def test_without_a_terminal_there_is_no_bar_of_steps(capsys):
    with training_bar() as show:
        assert show is None


@each_case(
    ("changes", "text"),
    [
        ({}, "loss 2.500  80 images/s  1 min 42 s left"),
        ({"best_loss_nats": 2.25, "seconds_left": None}, "loss 2.500  best 2.250  80 images/s"),
        ({"data_wait_share": 0.251, "seconds_left": None}, "loss 2.500  80 images/s (25 % data wait)"),
    ],
)
def test_the_bar_says_loss_best_speed_and_time_left(changes, text):
    assert bar_text(STEP._replace(**changes)) == text
