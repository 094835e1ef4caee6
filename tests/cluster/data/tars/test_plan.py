"""Which tars are in which split, and when an index is finished."""

from itertools import chain

import pytest

from cluster.data.conversion_config import IndexConfig
from cluster.data.tars.indexing import index
from cluster.data.tars.plan import plan_index
from cluster.errors import Refusal
from tests.support.case_table import each_case
from tests.support.raw_tars import tar_samples, write_tar


@pytest.fixture
def tars(tmp_path):
    folder = tmp_path / "tars"
    folder.mkdir()
    for number in range(4):
        write_tar(folder / f"{number}.tar", tar_samples([f"{number}a", f"{number}b"]))
    return folder


def config(**changes):
    return IndexConfig(minimum_word_count=1, **changes)


def names(plan):
    return {split: [one.rpartition("/")[2] for one in tars] for split, tars in plan.splits.items()}


@pytest.mark.parametrize(
    ("addresses", "changes", "found"),
    [
        (["{t}"], {}, {"train": ["0.tar", "1.tar", "2.tar", "3.tar"]}),
        (
            ["train={t}/{{0..2}}.tar", "validation={t}/3.tar"],
            {},
            {"train": ["0.tar", "1.tar", "2.tar"], "val": ["3.tar"]},
        ),
        (["{t}"], {"split_by": "95:5"}, {"train": ["0.tar", "1.tar", "2.tar"], "val": ["3.tar"]}),
        (["{t}"], {"split_by": "2:1:1"}, {"test": ["3.tar"], "train": ["1.tar", "2.tar"], "val": ["0.tar"]}),
    ],
)
def test_tars_get_their_splits(tars, tmp_path, addresses, changes, found):
    plan = plan_index([one.format(t=tars) for one in addresses], tmp_path / "set", config(**changes))
    assert {split: len(ones) for split, ones in names(plan).items()} == {
        split: len(ones) for split, ones in found.items()
    }
    assert sorted(chain(*names(plan).values())) == ["0.tar", "1.tar", "2.tar", "3.tar"]


@pytest.mark.parametrize(
    ("addresses", "changes", "fault"),
    [
        (["{t}/0.tar", "val={t}/1.tar"], {}, "0.tar has no split, and others have; write SPLIT= before each"),
        (["val={t}/0.tar"], {}, "made of the words of split train, and there is only val; write train= before"),
        (["train={t}", "val={t}/0.tar"], {}, "0.tar is in two splits, so scores would be too good; name each tar once"),
        (["train={t}"], {"split_by": "9:1"}, "--split-by 9:1 deals tars that have a split already; leave it out"),
        (["{t}/0.tar"], {"split_by": "9:1"}, r"too few files to deal to 2 splits \(1\); name the splits"),
    ],
)
def test_splits_that_do_not_fit_are_refused(tars, tmp_path, addresses, changes, fault):
    with pytest.raises(ValueError, match=fault):
        plan_index([one.format(t=tars) for one in addresses], tmp_path / "set", config(**changes))


def test_captions_that_are_not_seen_are_asked_for(tmp_path):
    write_tar(tmp_path / "0.tar", tar_samples(["a"], captions=lambda name: None, json_of=lambda name: {"alt": "A."}))
    with pytest.raises(
        Refusal, match=r"no captions are seen in .*0.tar: no .txt, .*; name where they are with --captions"
    ):
        plan_index([f"{tmp_path}/0.tar"], tmp_path / "set", config())


def test_tars_of_which_none_can_be_read_are_the_cause_and_not_their_captions(tmp_path):
    for name in ("0.tar", "1.tar"):
        (tmp_path / name).write_text("this is no tar")
    with pytest.raises(
        Refusal, match=r"no tar can be read, first .*0\.tar: it is no whole tar \(.*\); fetch it again$"
    ):
        plan_index([str(tmp_path)], tmp_path / "set", config())
    with pytest.raises(Refusal, match=r"^\S*0\.tar: it is no whole tar"):
        plan_index([f"{tmp_path}/0.tar"], tmp_path / "set", config())


@each_case("captions", ["jpg", "json.", "caption"])
def test_another_place_of_captions_is_refused(captions):
    with pytest.raises(ValueError, match=f"captions {captions} is not one of txt, json and json.FIELD"):
        IndexConfig(captions=captions)


def test_a_finished_index_stays_until_its_tars_change(tars, tmp_path):
    addresses, folder = [f"{tars}/{{0..2}}.tar"], tmp_path / "set"
    first = index(plan_index(addresses, folder, config()), num_workers=0)
    again = plan_index(addresses, folder, config())
    assert (again.missing, index(again, num_workers=0)) == ((), first)
    write_tar(tars / "1.tar", tar_samples([f"{n}" for n in range(20)]))
    (tars / "2.tar").rename(tars / "4.tar")
    with pytest.raises(Refusal) as refused:
        plan_index([str(tars)], folder, IndexConfig(minimum_word_count=2))
    for change in ("2 not in it", "1 no longer named", "1 gone", "1 of another size", "other settings", "--rebuild"):
        assert change in str(refused.value)
    rebuilt = index(plan_index([str(tars)], folder, config(rebuild=True)), num_workers=0)
    assert (rebuilt.splits, sorted(path.name for path in folder.iterdir())) == (
        {"train": 26},
        ["manifest.json", "vocabulary.txt"],
    )


def test_other_files_and_converted_sets_are_left_alone(tars, tmp_path, drawn_shards):
    with pytest.raises(ValueError, match="choose a new or empty folder"):
        plan_index([str(tars)], drawn_shards, config())
