import gzip
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from captioning.evaluation.meteor.hashed_lists import hash_text
from captioning.evaluation.meteor.index import default_folder, open_index

TABLE = "0.5\na dog\nthe dog\n0.25\na dog\na puppy of mine\n0.5\ndog\npuppy\n"


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "data").mkdir(parents=True)
    write_table(folder, TABLE)
    with zipfile.ZipFile(folder / "meteor-1.5.jar", "w") as jar:
        jar.writestr("synonym/english.synsets", "dog\n7 9\ncat\n8\n")
        jar.writestr("synonym/english.exceptions", "mouse\nmice\nabet\nabetted abetting\n")
        jar.writestr("function/english.words", "the\na\n")
        jar.writestr("nonbreaking/english.prefixes", "# titles\n\nMr\nNo #NUMERIC_ONLY#\n")
    return folder


def write_table(folder, text):
    with gzip.open(folder / "data/paraphrase-en.gz", "wt") as file:
        file.write(text)


def test_the_index_has_what_the_data_say(data, tmp_path):
    index = open_index(tmp_path / "index", data)
    assert index.paraphrases.get(hash_text("a dog")) == [hash_text("the dog"), hash_text("a puppy of mine")]
    assert index.paraphrases.get(hash_text("dog")) == [hash_text("puppy")]
    assert index.paraphrases.get(hash_text("puppy")) == []
    assert index.synsets.get(hash_text("dog")) == [7, 9]
    assert index.lemmas.get(hash_text("abetting")) == [hash_text("abet")]
    assert (index.function_words, index.abbreviations) == ({"the", "a"}, {"Mr": False, "No": True})
    assert index.longest_phrase == 4


def test_several_openers_build_one_index(data, tmp_path, log_lines, caplog):
    caplog.set_level("INFO")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: open_index(tmp_path / "index", data), range(8)))
    assert {len(index.paraphrases.values) for index in found} == {3}
    assert log_lines() == [f"building METEOR's index in {tmp_path / 'index'}, once; it takes a few seconds"]


def test_what_a_killed_process_left_is_replaced(data, tmp_path):
    left = tmp_path / "index" / "1-2-3.tmp"
    left.mkdir(parents=True)
    (left / "words.json").write_text("{")
    open_index(tmp_path / "index", data)
    assert not left.exists()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (TABLE + "0.5\ncat\n", "paraphrase-en.gz is not METEOR's table of paraphrases; install"),
        (TABLE + "0.5\na dog\none dog\n", "is not grouped by phrase; install pycocoevalcap again"),
    ],
)
def test_a_damaged_table_leaves_no_index(data, tmp_path, table, message):
    write_table(data, table)
    with pytest.raises(ValueError, match=message):
        open_index(tmp_path / "index", data)
    assert [path.name for path in (tmp_path / "index").iterdir()] == ["lock"]


def test_missing_data_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"meteor-1\.5\.jar"):
        open_index(tmp_path / "index", tmp_path)


def test_the_index_lies_in_the_node_s_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("CAPTIONING_CACHE", str(tmp_path))
    assert default_folder() == tmp_path / "meteor"
    monkeypatch.delenv("CAPTIONING_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache/captioning/meteor"
