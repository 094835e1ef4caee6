import json
from pathlib import Path

import numpy as np
import pytest

from captioning.data.tokenizers import PTB, UNICODE
from captioning.evaluation.meteor.index import open_index
from captioning.evaluation.meteor.scorer import Meteor, open_meteor, score_of_statistics
from tests.support.case_table import each_case

# Printed by METEOR's own jar, called as the COCO evaluation calls it; of Flickr8k's captions the first 100 scores.
EXPECTED = json.loads((Path(__file__).parent / "expected.json").read_text())
CANDIDATES, REFERENCES, SCORES = zip(*EXPECTED["sentences"], strict=True)


@pytest.fixture(scope="module")
def meteor():
    return Meteor(open_index())


def rows(meteor, candidates, references):
    return np.array(list(meteor.statistics(candidates, references)))


@each_case("number", range(len(SCORES)))
def test_each_sentence_scores_as_by_meteor_s_jar(meteor, number):
    found = rows(meteor, CANDIDATES[number : number + 1], REFERENCES[number : number + 1])
    assert score_of_statistics(found)[0] == pytest.approx(SCORES[number], abs=1e-9)


def test_a_corpus_scores_as_by_meteor_s_jar(meteor):
    found = rows(meteor, CANDIDATES, REFERENCES)
    assert score_of_statistics(found.sum(axis=0)) == pytest.approx(EXPECTED["sentences_corpus"], abs=1e-9)


def test_the_oracle_has_its_published_score(meteor, shared_data):
    oracle = json.loads((shared_data / "oracle" / "fakecap_val2014_tokenized_refs_and_candidates.json").read_text())
    found = rows(meteor, [image["test"] for image in oracle], [image["refs"] for image in oracle])
    score = score_of_statistics(found.sum(axis=0))
    assert score == pytest.approx(EXPECTED["oracle_corpus"], abs=1e-9)
    assert round(float(score), 3) == 0.195


def test_captions_of_photographs_score_as_by_meteor_s_jar(meteor, shared_data):
    annotations = json.loads((shared_data / "flickr8k-part/annotations/captions_val.json").read_text())["annotations"]
    captions = {}
    for annotation in sorted(annotations, key=lambda one: one["image_id"]):
        captions.setdefault(annotation["image_id"], []).append(" ".join(PTB.tokenize(annotation["caption"])))
    expected = EXPECTED["flickr8k_part"]
    candidates, *references = zip(*list(captions.values())[: len(expected)], strict=True)
    found = rows(meteor, candidates, list(zip(*references, strict=True)))
    assert score_of_statistics(found).tolist() == pytest.approx(expected, abs=1e-6)


def test_captions_score_alike_in_any_company(meteor):
    alone = [rows(meteor, [one], [others])[0] for one, others in zip(CANDIDATES, REFERENCES, strict=True)]
    assert (rows(meteor, CANDIDATES * 9, REFERENCES * 9) == np.array(alone * 9)).all()


@pytest.mark.parametrize(
    ("captions", "share"),
    [
        (["ein Hund läuft über die Wiese in dem Park", "zwei Frauen sitzen an einem Tisch"], 13),
        (["un chien court dans la neige", "deux femmes sont assises sur un banc"], 0),
    ],
)
def test_other_languages_are_left_out_and_this_is_said(captions, share, log_lines, caplog):
    caplog.set_level("INFO")
    assert open_meteor(captions) is None
    assert log_lines() == [
        "METEOR is left out of the scores, because it is for English, and "
        f"{share} % of the references' words are function words of English, where it needs 25 %"
    ]


@pytest.mark.parametrize("caption", ["a red circle above a blue square", "a dog runs on the grass"])
def test_english_is_scored(caption):
    assert open_meteor([caption])


def test_without_a_folder_for_the_index_meteor_is_left_out(monkeypatch, tmp_path, log_lines):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CAPTIONING_CACHE", str(tmp_path / "file"))
    assert open_meteor(["a dog"]) is None
    assert log_lines()[0].startswith("METEOR is left out of the scores, because its data cannot be read: [Errno 20]")


def test_words_by_another_tokenizer_are_left_out(log_lines, caplog):
    caplog.set_level("INFO")
    assert open_meteor(["a dog"], UNICODE) is None
    assert log_lines() == [
        "METEOR is left out of the scores, because it is for English, by tokenizer ptb; words are by unicode"
    ]
