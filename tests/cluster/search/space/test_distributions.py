import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.config import TrainRun
from cluster.search.space.distributions import Parameter
from cluster.search.space.space import parse_space
from tests.support.case_table import each_case

BASE = TrainRun()
RATE, UNITS, DROPOUT = "optimizer.learning_rate", "model.hidden_size", "model.dropout"


def parameter(key, value):
    [only] = parse_space({key: value}, BASE).parameters
    return only


@each_case(
    ("key", "value", "kind", "arguments"),
    [
        (RATE, "loguniform(1e-4, 1e-2)", "loguniform", (1e-4, 1e-2)),
        (DROPOUT, "uniform(0, 0.5)", "uniform", (0.0, 0.5)),
        (DROPOUT, " uniform( 0 ,.5 ) ", "uniform", (0.0, 0.5)),
        (UNITS, "choice([256, 512, 1024])", "choice", (256, 512, 1024)),
        (UNITS, "int(8, 16)", "int", (8, 16)),
        (UNITS, "logint(8, 512)", "logint", (8, 512)),
        ("training.seed", "int(-3, 3)", "int", (-3, 3)),
        (DROPOUT, "choice([0, 0.5])", "choice", (0.0, 0.5)),  # the type of the field
        ("model.trainable_from", "choice([null, 'all'])", "choice", (None, "all")),
        ("training.flip", "choice([true, False])", "choice", (True, False)),
        ("model.pooling", 'choice(["mean", "none"])', "choice", ("mean", "none")),
        ("training.batch_size", 32, "choice", (32,)),
        ("model.pooling", "none", "choice", ("none",)),
        ("model.trainable_from", None, "choice", (None,)),
        ("model.weights", "2017/weights(1).pth", "choice", ("2017/weights(1).pth",)),
        ("model.weights", "it's", "choice", ("it's",)),
        (RATE, "1e-4", "choice", (1e-4,)),  # YAML reads it as a string
    ],
)
def test_a_distribution_is_read(key, value, kind, arguments):
    read = parameter(key, value)
    assert (read.kind, read.arguments) == (kind, arguments)
    assert [type(argument) for argument in read.arguments] == [type(argument) for argument in arguments]


@each_case(
    ("key", "value", "text"),
    [
        (RATE, "loguniform(1e-4,1e-2)", "loguniform(0.0001, 0.01)"),
        (DROPOUT, "uniform(0, 5e-1)", "uniform(0.0, 0.5)"),
        (UNITS, "choice((256,512))", "choice([256, 512])"),
        (UNITS, "int(1,9)", "int(1, 9)"),
        ("model.trainable_from", "choice([None, 'layer4'])", 'choice([null, "layer4"])'),
        ("training.flip", False, "false"),
        ("model.pooling", "none", '"none"'),
        ("training.batch_size", "choice([32])", "32"),
    ],
)
def test_the_same_values_have_the_same_text_which_reads_back(key, value, text):
    assert str(parameter(key, value)) == text
    assert parameter(key, text) == parameter(key, value)


@each_case(
    ("kind", "arguments", "values"),
    [
        ("int", (2, 4), [2, 3, 4]),
        ("logint", (1, 2), [1, 2]),
        ("choice", (3, 1), [3, 1]),
        ("uniform", (0.5, 0.5), [0.5]),
        ("uniform", (0.0, 0.5), None),
        ("loguniform", (0.1, 0.5), None),
    ],
)
def test_values_are_counted_where_they_can_be(kind, arguments, values):
    found = Parameter(key=DROPOUT, kind=kind, arguments=arguments).values
    assert (found if found is None else list(found)) == values


@each_case(
    ("key", "value", "message"),
    [
        (UNITS, "choise([1])", r"search key model.hidden_size, choise\(\[1\]\): there is no choise\(\); use choice"),
        (UNITS, "zzz(1)", r"there is no zzz\(\); use uniform, loguniform, int, logint, choice"),
        (UNITS, "int(1, high=4)", "int takes no named arguments; write the values alone"),
        (UNITS, "choice(1, 2)", r"choice takes one list; write choice\(\[A, B\]\)"),
        (UNITS, "choice(1)", "choice takes one list"),
        (UNITS, "choice([])", "the list of choices is empty; write at least one value"),
        (UNITS, "choice([1, [2]])", "a value is not a number, a text, true, false or null; to try several"),
        (UNITS, [256, 512], r"a value is not a number, .* to try several, write choice\(\[A, B\]\)"),
        (UNITS, "[256, 512]", r"hidden_size cannot be '\[256, 512\]' \(Input should be a valid integer"),
        (
            "model.pooling",
            "choice([mean])",
            "a value is not a number, true, false, null, or a text in quotes; write one",
        ),
        (UNITS, "choice([__import__('os').getpid()])", "a value is not a number, .* text in quotes; write one"),
        (UNITS, "choice([{}[0]])", "a value is not a number"),
        (UNITS, "choice([1, 2", "brackets, quotes or commas are wrong; fix them"),
        (UNITS, "int(1)", r"int takes two numbers; write int\(LOWEST, HIGHEST\)"),
        (UNITS, "int(true, 4)", "int takes two numbers"),
        (UNITS, "int(1, 4.0)", "int takes whole numbers; for others use uniform"),
        (UNITS, "logint(1.5, 4)", "logint takes whole numbers; for others use loguniform"),
        (UNITS, "int(4, 3)", "the range from 4 to 3 is empty; write the lower end first"),
        (UNITS, "logint(0, 3)", "0 has no logarithm; start above 0, or use int"),
        (RATE, "loguniform(0, 1)", "0.0 has no logarithm; start above 0, or use uniform"),
        (RATE, "loguniform(1e-2, 1e-4)", "the range from 0.01 to 0.0001 is empty; write the lower end first"),
        (RATE, "uniform(0.1, 1e999)", "inf is not finite; use a finite number"),
        (RATE, float("nan"), "nan is not finite; use a finite number"),
        (RATE, f"uniform(1, {10**400})", f"a whole number is out of range; use at most {2**53}"),
        (RATE, "choice([1, 1.0])", "a choice occurs twice; keep one of them"),
        (RATE, "x", r"learning_rate cannot be 'x' \(Input should be a valid number\); use values of its type"),
        (RATE, True, r"learning_rate cannot be True \(Input should be a valid number\)"),
        (UNITS, 0.5, r"hidden_size cannot be 0.5 \(Input should be a valid integer\); use whole numbers: int, logint"),
        (
            UNITS,
            "uniform(8, 16)",
            r"uniform\(8.0, 16.0\): hidden_size cannot be 8.0 \(Input should be a valid integer\)",
        ),
        ("training.flip", "choice([0, 1])", r"flip cannot be 0 \(Input should be a valid boolean"),
        ("training.flip", "int(0, 1)", r"flip cannot be 0 \(Input should be a valid boolean"),
        ("model.pooling", "choice(['mean', 'max'])", r"pooling cannot be 'max' \(Input should be 'mean' or 'none'\)"),
    ],
)
def test_a_faulty_distribution_is_refused(key, value, message):
    with pytest.raises(ValueError, match=message):
        parameter(key, value)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from([UNITS, RATE, "model.weights", "training.flip"]),
)
def test_any_text_is_a_distribution_or_refused(text, key):
    try:
        space = parse_space({key: text}, BASE)
    except ValueError as error:
        assert key in str(error)  # noqa: PT017  either is right
    else:
        assert parse_space(space.description(), BASE) == space


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.sampled_from(["uniform", "loguniform", "int", "logint", "choice"]), st.text("0123456789.e-+,[]()'n ", max_size=9)
)
def test_any_arguments_are_taken_or_refused(kind, arguments):
    try:
        space = parse_space({RATE: f"{kind}({arguments})"}, BASE)
    except ValueError as error:
        assert RATE in str(error)  # noqa: PT017  either is right
    else:
        assert parse_space(space.description(), BASE) == space
