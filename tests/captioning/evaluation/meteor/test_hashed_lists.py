import numpy as np

from captioning.evaluation.meteor.hashed_lists import HashedLists, TextHasher, hash_lines, hash_text


def test_a_piece_of_a_text_has_the_hash_of_the_same_text_alone():
    text = "a dog and a dog on grass"
    hasher = TextHasher(np.frombuffer(text.encode(), np.uint8))
    first, second, whole = hasher.hash(np.array([0, 10, 0]), np.array([5, 15, len(text)])).tolist()
    assert (first, second, whole) == (hash_text("a dog"), hash_text("a dog"), hash_text(text))
    assert len({first, whole, hash_text("dog a"), hash_text("a  dog"), hash_text("")}) == 5


def test_lines_have_the_same_hashes_however_the_text_is_cut():
    text = "a dog\nzwei Hündchen\n\nx\n".encode()
    for size in (1, 3, 7, len(text)):
        chunks = (text[start : start + size] for start in range(0, len(text), size))
        hashes, spaces = map(np.concatenate, zip(*hash_lines(chunks), strict=True))
        assert hashes.tolist() == [hash_text(line) for line in ("a dog", "zwei Hündchen", "", "x")]
        assert spaces.tolist() == [1, 1, 0, 0]


def test_lists_are_found_by_their_keys_after_saving(tmp_path):
    lists = {hash_text("dog"): [3, 1, 2], hash_text("cat"): [], hash_text("a cat"): [2**64 - 1]}
    HashedLists.of(lists, np.uint64).save(tmp_path)
    found = HashedLists.open(tmp_path)
    assert {key: found.get(key) for key in lists} == lists
    assert found.get(hash_text("bird")) == found.get(2**64 - 1) == []
