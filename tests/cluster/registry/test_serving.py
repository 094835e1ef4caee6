"""The registered model as MLflow loads it, in this process; ``integration/test_model_server`` tests it over HTTP."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pandas
import pytest
from mlflow.exceptions import MlflowException

from captioning.generation.config import GenerationConfig
from captioning.serving.image_input import ImageInputConfig
from cluster.registry.models import resolve_model
from cluster.registry.registration import register
from tests.support.pictures import encoded, noise
from tests.support.served_versions import SCENES, ask, expected, load, text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with an image that the version may read."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "a.jpg").write_bytes(SCENES[0])
    return folder


@pytest.fixture(scope="module")
def open_served(client, tiny_run, folder):
    """Return a loaded version that also accepts paths below the folder, and URLs."""
    intake = ImageInputConfig(allow_paths=folder, allow_urls="public")
    return load(
        register(
            resolve_model(str(tiny_run), client),
            "open",
            client,
            generation=GenerationConfig(beam_size=2),
            intake=intake,
        ),
        client,
    )


@pytest.mark.parametrize("form", [bytes, text])
def test_a_batch_is_captioned_as_the_checkpoint_does(served, tiny_run, client, form):
    answers = ask(served, *map(form, SCENES))
    wanted = expected(tiny_run, client, SCENES)
    assert [(one["caption"], one["error"]) for one in answers] == [(one.captions[0], None) for one in wanted]
    assert [one["log_probability"] for one in answers] == pytest.approx([one.log_probability for one in wanted])


def test_more_images_than_a_batch_keep_their_order(served, tiny_run, client):
    contents = [SCENES[number % 3] for number in range(20)]
    contents[17] = b"no image"
    answers = ask(served, *contents)
    wanted = [one.captions[0] for one in expected(tiny_run, client, SCENES)]
    assert [one["caption"] for one in answers] == [None if n == 17 else wanted[n % 3] for n in range(20)]


def test_a_bad_image_is_an_error_of_its_row_alone(served):
    cut = encoded(noise(64, 64))[:900]
    answers = ask(served, text(SCENES[0]), text(b"no image"), "not base64!", None, text(cut), text(SCENES[1]))
    assert [one["error"] and one["error"].split("(")[0] for one in answers] == [
        None,
        "the image begins with b'no image' and is not a readable JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM",
        "the image is not base64 ",
        "the row is empty; give one value, in column image",
        "the image does not decode ",
        None,
    ]
    assert [one["caption"] is None for one in answers] == [False, True, True, True, True, False]


def test_only_bad_images_are_only_errors(served):
    (answer,) = ask(served, b"")
    assert (answer["caption"], answer["log_probability"]) == (None, None)


def test_several_captions_come_best_first(served, tiny_run, client):
    (answer,) = ask(served, SCENES[0], beam=5, num_captions=4)
    (wanted,) = expected(tiny_run, client, SCENES[:1], beam_size=5)
    assert (answer["caption"], answer["captions"]) == (wanted.captions[0], list(wanted.captions[:4]))


def test_the_beam_is_the_registered_one_unless_asked_otherwise(open_served, tiny_run, client):
    wanted = [expected(tiny_run, client, SCENES[:1], beam_size=size)[0].captions[0] for size in (2, 7)]
    assert [ask(open_served, SCENES[0], **params)[0]["caption"] for params in ({}, {"beam": 7})] == wanted


@pytest.mark.parametrize(
    ("params", "settings"),
    [
        ({"beam": 4, "groups": 2, "group_penalty": 3}, {"beam_size": 4, "groups": 2, "group_penalty": 3.0}),
        ({"min_words": 7, "no_repeat_ngram": 1}, {"min_words": 7, "no_repeat_ngram": 1}),
        ({"length_power": 0.0}, {"length_power": 0.0}),
        (
            {"temperature": 1, "num_captions": 3, "sampling_seed": 4},
            {"temperature": 1.0, "num_samples": 3, "sampling_seed": 4},
        ),
    ],
)
def test_a_request_chooses_the_search_that_captioning_has_too(served, tiny_run, client, params, settings):
    answers = ask(served, *SCENES, **params)
    wanted = expected(tiny_run, client, SCENES, **settings)
    assert [one["caption"] for one in answers] == [one.captions[0] for one in wanted]


def test_no_caption_is_longer_than_asked(served):
    assert [len(one["caption"].split()) <= 2 for one in ask(served, *SCENES, max_length=2)] == [True] * 3


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"beam": 0}, "beam cannot be 0; use 1 to 20"),
        ({"beam": 21}, "beam cannot be 21; use 1 to 20"),
        ({"max_length": 0}, "max_length cannot be 0; use 1 to 100"),
        ({"max_length": 10**9}, "max_length cannot be 1000000000; use 1 to 100"),
        ({"num_captions": 0}, "num_captions cannot be 0; use 1 to 3, at most the beam"),
        ({"num_captions": 4}, "num_captions cannot be 4; use 1 to 3, at most the beam"),
        ({"groups": 2}, "groups 2 do not divide a beam of 3; use a divisor of the beam size"),
        ({"temperature": -1.0}, "temperature -1.0 is out of range; use 0.01 to 100"),
        ({"min_words": 9}, "min_words 9 is more than the 8 words at which captions are cut; use at most 8"),
        ({"beam": "many"}, "Invalid parameters found.*beam"),
    ],
)
def test_a_parameter_out_of_bounds_is_refused(served, params, message):
    with pytest.raises(MlflowException, match=message):
        ask(served, SCENES[0], **params)


def test_a_path_is_read_if_it_was_registered_so(open_served, tiny_run, client):
    rows = pandas.DataFrame([{"path": "a.jpg"}, {"path": "/etc/hostname"}, {"image": SCENES[1]}])
    answers = open_served.predict(rows).to_dict("records")
    wanted = expected(tiny_run, client, SCENES[:2], beam_size=2)
    assert [one["caption"] for one in answers] == [wanted[0].captions[0], None, wanted[1].captions[0]]
    assert answers[1]["error"] == "the path is outside the image folder; give a path below it"


def test_a_url_of_this_network_is_not_fetched(open_served):
    (answer,) = open_served.predict(pandas.DataFrame({"url": ["http://169.254.169.254/latest/meta-data"]})).to_dict(
        "records"
    )
    assert answer["error"] == "the URL's host has an address that is not allowed; give a public host"


@pytest.mark.parametrize("column", ["path", "url"])
def test_neither_paths_nor_urls_are_taken_otherwise(served, folder, column):
    with pytest.raises(MlflowException, match=r"Model is missing inputs \['image'\]"):
        served.predict(pandas.DataFrame({column: [str(folder / "a.jpg")]}))


@pytest.mark.parametrize("rows", [[{"img": "a"}, {"foo": 1}], [{}]])
def test_rows_without_any_known_column_are_refused_and_not_answered_by_nothing(open_served, rows):
    with pytest.raises(MlflowException, match="no row has a value in column image or path or url; give each row one"):
        open_served.predict(pandas.DataFrame(rows))


def test_a_path_is_not_read_beside_an_empty_image(served, folder):
    rows = pandas.DataFrame({"image": [None], "path": [str(folder / "a.jpg")]})
    assert served.predict(rows)["error"][0] == "the row is empty; give one value, in column image"


def test_limits_are_those_that_were_registered(client, tiny_run):
    intake = ImageInputConfig(max_mib=1, max_megapixels=1)
    model = load(register(resolve_model(str(tiny_run), client), "limited", client, intake=intake), client)
    large = encoded(noise(1001, 1000), quality=10)
    errors = [one["error"].split(";")[0] for one in ask(model, large, b"x" * (2**20 + 1))]
    assert errors == [
        "the image has more than the allowed 1 million pixels", "the image is larger than the allowed 1 MiB",
    ]  # fmt: skip


def test_a_request_of_too_many_rows_is_refused(client, tiny_run):
    model = load(
        register(resolve_model(str(tiny_run), client), "few", client, intake=ImageInputConfig(max_rows=2)), client
    )
    assert len(ask(model, *SCENES[:2])) == 2
    with pytest.raises(MlflowException, match="the request has 3 rows; send at most 2 at a time"):
        ask(model, *SCENES)


def test_two_images_are_decoded_at_a_time_over_all_requests(served, monkeypatch):
    service = served.unwrap_python_model()
    both, counted, running, most = threading.Barrier(2, timeout=60), threading.Lock(), 0, 0
    decode = service._captioner.decode

    def decode_with_another(content):
        nonlocal running, most
        with counted:
            running += 1
            most = max(most, running)
        both.wait()
        with counted:
            running -= 1
        return decode(content)

    monkeypatch.setattr(service._captioner, "decode", decode_with_another)
    with ThreadPoolExecutor(8) as requests:
        answers = list(requests.map(lambda scene: ask(served, scene), SCENES[:2] * 4))
    assert ([one["error"] for (one,) in answers], most) == ([None] * 8, 2)
