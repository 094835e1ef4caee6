import re

import pytest

from cluster.registry.model_card import CARD_END, LONGEST_CARD, CardDataset, is_card, version_card

RECORD = {
    "run": "first",
    "step": "800",
    "encoder": "resnet152",
    "decoder": "lstm",
    "image_size_px": "224",
    "max_caption_words": "20",
    "vocabulary_words": "9945",
    "vocabulary_digest": "v" * 64,
    "shards_digest": "s" * 64,
    "git_commit": "c" * 40,
    "git_dirty": "true",
    "registered_by": "ada",
    "package.torch": "2.14.1",
}
SCORES = {
    "num_images": 5000,
    "beam_size": 3,
    "shards_digest": "s" * 64,
    "confidence": 0.95,
    "scores": {"CIDEr-D": 0.91234, "BLEU-4": 0.3},
    "intervals": {"CIDEr-D": [0.9, 0.92]},
}
TRAINING = CardDataset("coco-train", "s" * 36, "training", 118_287, "s3://bucket/coco")


def card(record=RECORD, evaluations=None, datasets=(TRAINING,)):
    found = {"val": SCORES} if evaluations is None else evaluations
    return version_card("captioner version 3", "models:/captioner/3", record, found, datasets)


@pytest.mark.parametrize(
    "line",
    [
        "captioner version 3 writes a sentence about a photograph: resnet152 encoder, lstm decoder, 224 px.",
        "### Scores on 5000 images of split val, beam 3",
        "| score | &nbsp; value | &nbsp; 95% interval |",
        "| CIDEr-D | &nbsp; 0.9123 | &nbsp; 0.9000 to 0.9200 |",
        "| BLEU-4 | &nbsp; 0.3000 |  |",
        f"- training: coco-train, 118,287 images, `{'s' * 36}`, from `s3://bucket/coco`",
        'model = mlflow.pyfunc.load_model("models:/captioner/3")',
        "captioning caption photo.jpg --model 'models:/captioner/3'",
        "It knows only the 9945 words of its vocabulary, at most 20 in a caption.",
        f"- commit: `{'c' * 40}`, with uncommitted changes",
        "- registered by ada, with torch 2.14.1",
    ],
)
def test_a_card_says_what_people_ask(line):
    assert line in card()


def test_a_card_has_the_settings_of_the_decoder():
    record = RECORD | {"decoder": "attend", "decoder.hidden_size": "512", "decoder.num_heads": "8"}
    assert ": resnet152 encoder, attend decoder (hidden\\_size 512, num\\_heads 8), 224 px." in card(record)


@pytest.mark.parametrize(
    ("recorded", "text"),
    [
        ({"generation": {"groups": 2, "top_p": 0.9}}, r"split val, beam 3, groups 2, top\_p 0.9"),
        ({"generation": "altered"}, "split val, beam 3"),
        ({"beam_size": "*4*"}, r"split val, beam \*4\*"),
    ],
)
def test_a_card_says_which_search_found_the_captions(recorded, text):
    heading = next(line for line in card(evaluations={"val": SCORES | recorded}).splitlines() if "### Scores" in line)
    assert heading.endswith(text)


def test_a_card_names_the_licences_that_the_source_names():
    assert "Licence: that of the photographs and captions, which the shard set does not record." in card()
    licensed = TRAINING._replace(licenses=("Attribution License (http://h/by_2.0/)", "*Other*"))
    found = card(datasets=(licensed, licensed._replace(use="validation")))
    told = r"Licences that the source of the data names: Attribution License (http://h/by\_2.0/), \*Other\*."
    assert (told in found, "does not record" in found) == (True, False)
    many = TRAINING._replace(licenses=tuple(f"L{number}" for number in range(9)))
    assert "L7, and others." in card(datasets=(many,))


def test_the_lineage_is_five_lines():
    assert len(re.findall("^- ", card().split("### Lineage")[1], re.MULTILINE)) == 5


def test_a_version_of_which_little_is_known_has_a_card_without_it():
    text = card({}, {}, ())
    assert ("unknown" in text, re.search("Scores|### Data|encoder", text)) == (True, None)


def test_markup_in_names_is_shown_as_it_is():
    bad = "<img src=x onerror=alert(1)> `|` [a](javascript:b)\n# c"
    record, dataset = (
        RECORD | {"run": bad, "registered_by": bad, "git_commit": bad},
        TRAINING._replace(name=bad, source=bad),
    )
    text = card(record, {bad: SCORES}, [dataset])
    outside = re.sub("```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)[<\[]|^# c", outside, re.MULTILINE)


def test_a_card_fits_in_mlflows_column():
    long = "x" * 10_000
    many = {f"{long}{number}": SCORES for number in range(50)}
    text = card({name: long for name in RECORD}, many, [TRAINING._replace(name=long, source=long)] * 50)
    assert (len(text) <= LONGEST_CARD, text.endswith(CARD_END)) == (True, True)


@pytest.mark.parametrize(
    ("text", "wanted"), [(None, True), (" ", True), (card(), True), (card() + "\n", True), ("our best model", False)]
)
def test_a_text_of_somebody_else_is_no_card(text, wanted):
    assert is_card(text) is wanted
