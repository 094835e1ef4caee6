from dataclasses import replace

import pytest

from captioning.config import ModelConfig
from cluster.config import ClusterConfig, TrainRun
from cluster.presets import TRAIN_PRESETS
from cluster.search.space.space import DEFAULT_SEARCH, apply_point, parse_space, read_search, space_differences
from tests.support.case_table import each_case

BASE = TrainRun()
RATE, UNITS, DROPOUT = "optimizer.learning_rate", "model.hidden_size", "model.dropout"


@pytest.fixture
def file(tmp_path):
    def write(content):
        path = tmp_path / "search.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@each_case(
    ("content", "num_points"),
    [
        (DEFAULT_SEARCH, None),
        ({UNITS: "choice([1, 2, 3])", "training.seed": "int(0, 4)", "training.flip": True}, 15),
        ({UNITS: 8}, 1),
        ({"training.seed": f"int(0, {2**53})", "optimizer.warmup_steps": f"int(1, {2**53})"}, (2**53 + 1) * 2**53),
    ],
)
def test_a_space_knows_how_many_points_it_has(content, num_points):
    assert parse_space(content, BASE).num_points == num_points


def test_a_space_keeps_the_order_of_its_file_and_knows_what_is_searched():
    space = parse_space({UNITS: "int(1, 9)", "training.flip": False, DROPOUT: "uniform(0, 0.5)"}, BASE)
    assert list(space.description().items()) == [
        (UNITS, "int(1, 9)"),
        ("training.flip", "false"),
        (DROPOUT, "uniform(0.0, 0.5)"),
    ]
    assert [parameter.key for parameter in space.searched] == [UNITS, DROPOUT]
    assert parse_space(space.description(), BASE) == space


@each_case("preset", TRAIN_PRESETS)
def test_the_default_search_suits_every_preset(preset):
    assert len(parse_space(DEFAULT_SEARCH, TRAIN_PRESETS[preset][1]).parameters) == 2


@each_case(
    ("content", "message"),
    [
        ({}, "the search holds no keys; write lines such as"),
        ({"optimizer.learning_rte": 1.0}, r"learning_rte; did you mean optimizer.learning_rate\?"),
        ({"hidden_size": 8}, r"unknown search key hidden_size; did you mean model.hidden_size\?"),
        ({"validation.zzz": 8}, "unknown search key validation.zzz; use validation.where, validation.best_by"),
        ({"optimizer.batch_size": 8}, "unknown search key optimizer.batch_size; use optimizer.learning_rate, "),
        ({"zzz": 8}, r"unknown search key zzz; use model\.\*, optimizer\.\*"),
        ({7: 8}, "unknown search key 7; use"),
        ({"model": {"dropout": 0.1}}, "unknown search key model; use model.backbone"),
        ({"cluster.num_workers": "int(1, 4)"}, "num_workers does not influence the model; leave it out"),
        ({"name": "choice(['a'])"}, "search key name does not influence the model"),
        ({"training.num_epochs": "int(1, 4)"}, "training.num_epochs cannot be searched: --max-epochs limits .*; leave"),
        ({"validation.where": "beside"}, "cannot be searched: a trial's own workers compute its score; leave"),
        ({"validation.best_by": "validation_cider_d"}, "cannot be searched: one score .* --metric"),
        ({DROPOUT: "uniform(0, 1.5)"}, r"model.dropout, uniform\(0.0, 1.5\): dropout 1.5 is not a fraction"),
        ({UNITS: "choice([8, 0, 16])"}, r"model.hidden_size, choice\(\[8, 0, 16\]\): hidden_size 0 is not positive"),
        (
            {"model.decoder": "choice(['lstm', 'transformer'])", "model.pooling": "choice(['mean', 'none'])"},
            r"key model.pooling, .*: pooling mean is a setting of decoder lstm, not of transformer; leave it out",
        ),
        ({"model.num_heads": "int(1, 4)"}, "num_heads 1 is a setting of decoders attend and transformer, not of lstm"),
        ({"training.batch_size": 1}, "fixed search keys training.batch_size: a batch of 1 images leaves"),
        ({"training.batch_size": "int(1, 4)"}, r"batch_size, int\(1, 4\): a batch of 1 images leaves"),
    ],
)
def test_a_faulty_space_is_refused_before_anything_starts(content, message):
    with pytest.raises(ValueError, match=message):
        parse_space(content, BASE)


def test_a_relation_between_keys_is_checked_against_the_base_and_what_is_fixed():
    with pytest.raises(ValueError, match="a batch of 4 images leaves some of 8 workers without any"):
        parse_space({"training.batch_size": 4}, replace(BASE, cluster=ClusterConfig(num_workers=8)))
    space = {"training.batch_size": 8, UNITS: "int(1, 2)"}
    assert parse_space(space, replace(BASE, cluster=ClusterConfig(num_workers=8))).num_points == 2


def test_a_point_changes_its_keys_alone():
    run = apply_point(BASE, {RATE: 1, UNITS: 8, DROPOUT: 0.25, "model.trainable_from": None})
    assert run == replace(
        BASE, model=ModelConfig(hidden_size=8, dropout=0.25), optimizer=replace(BASE.optimizer, learning_rate=1.0)
    )
    assert type(run.optimizer.learning_rate) is float


@each_case(
    ("point", "message"),
    [
        ({"model.units": 8}, r"unknown search key model.units; "),
        ({UNITS: 8.0}, r"hidden_size cannot be 8.0 \(Input should be a valid integer\); use whole numbers"),
        ({UNITS: 0}, "hidden_size 0 is not positive"),
    ],
)
def test_a_point_outside_the_configuration_is_refused(point, message):
    with pytest.raises(ValueError, match=message):
        apply_point(BASE, point)


def test_a_file_is_read_in_its_order(file):
    path = file(f"# units\n{UNITS}: choice([256, 512])\n{RATE}: loguniform(1e-4, 1e-2)\ntraining.batch_size: 32\n")
    assert list(read_search(path).items()) == [
        (UNITS, "choice([256, 512])"),
        (RATE, "loguniform(1e-4, 1e-2)"),
        ("training.batch_size", 32),
    ]


@each_case(
    ("content", "message"),
    [
        ("", "contains no settings; write lines such as model.hidden_size: choice"),
        ("# nothing", "contains no settings"),
        ("{}", "contains no settings"),
        ("- a", "contains no settings"),
        ("a: [", "is not valid YAML .*; fix it"),
        ("a: !!python/object/apply:os.getpid []", "is not valid YAML .*could not determine a constructor"),
        ("? [1]\n: 2", "is not valid YAML .*unhashable"),
        (b"\xff\xfe\x00", "is not valid YAML"),
        (
            "a: 1\nb: 2\na: 3",
            r"is not valid YAML \(key a stands twice, and only one of its values would",
        ),
    ],
)
def test_a_damaged_file_is_named(file, content, message):
    with pytest.raises(ValueError, match=rf"--search .*search\.yaml {message}"):
        read_search(file(content))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--search .*none\.yaml does not exist; check its name"):
        read_search(tmp_path / "none.yaml")


@each_case(
    ("before", "now", "differences"),
    [
        ({"a": "1"}, {"a": "1"}, []),
        ({"a": "1", "b": "2"}, {"b": "2", "a": "1"}, ["order a, b -> b, a"]),  # a grid is walked in it
        ({RATE: "uniform(0.1, 0.2)"}, {RATE: "0.1"}, [f"{RATE} uniform(0.1, 0.2) -> 0.1"]),
        ({"a": "1"}, {"b": "2"}, ["a 1 -> (absent)", "b (absent) -> 2"]),
    ],
)
def test_differences_name_each_key(before, now, differences):
    assert space_differences(before, now) == differences
