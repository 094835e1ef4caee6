"""``captioning caption`` from the command line, with an untrained model."""

import json
import os

import pytest

from cluster.data.shard_set import ShardSet
from shards.synthetic.scenes import draw_scene, render
from tests.support.pictures import encoded, picture

pytestmark = pytest.mark.usefixtures("tiny_home")


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        render(draw_scene(0, number, size_px=64)).save(folder / f"{number}.png")
    return folder


def test_captions_are_a_line_an_image(captioning, tiny_run, pictures):
    _, printed, _ = captioning("caption", pictures, "--model", tiny_run)
    names = [line.split("\t")[0] for line in printed.splitlines()]
    assert names == [str(pictures / f"{number}.png") for number in range(3)]


def test_a_checkpoint_in_a_folder_needs_no_tracker(captioning, tiny_run, pictures, tmp_path):
    home = ("--home", tmp_path / "none")
    code, printed, _ = captioning("caption", pictures / "0.png", "--model", tiny_run, *home)
    assert (code, printed.count("\n"), (tmp_path / "none").exists()) == (0, 1, False)
    code, _, complaint = captioning("caption", pictures / "0.png", "--model", "models:/m@champion", *home)
    assert (code, complaint.startswith(f"error: there is no tracker in {tmp_path}/none"), list(tmp_path.iterdir())) == (
        2,
        True,
        [pictures],
    )


def test_captions_as_json_have_their_alternatives(captioning, tiny_run, pictures):
    _, printed, _ = captioning("caption", pictures / "0.png", "--model", tiny_run, "--json")
    (one,) = json.loads(printed)
    assert (one["name"], len(one["captions"])) == (str(pictures / "0.png"), 3)


def test_a_shard_set_is_captioned(captioning, tiny_run, drawn_shards):
    _, printed, _ = captioning("caption", drawn_shards, "--model", tiny_run, "--split", "val")
    keys = [line.split("\t")[0] for line in printed.splitlines()]
    assert keys == [sample.key for sample in map(ShardSet(drawn_shards).reader("val").read, range(30))]


def test_a_page_shows_the_pictures(captioning, tiny_run, pictures, tmp_path):
    captioning("caption", pictures, "--model", tiny_run, "--html", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().count("data:image/jpeg;base64,") == 3


def test_names_that_are_not_utf_8_or_not_printable_lose_no_caption(captioning, tiny_run, pictures, tmp_path):
    for number, name in enumerate([b"caf\xe9.png", b"a\nb\x1b[2J.png"]):
        (pictures / f"{number}.png").rename(pictures / os.fsdecode(name))
    code, printed, _ = captioning("caption", pictures, "--model", tiny_run, "--html", tmp_path / "page.html")
    names = [line.split("\t")[0] for line in printed.splitlines()]
    assert (code, names) == (0, [f"{pictures}/{name}" for name in ("2.png", r"a\nb\x1b[2J.png", r"caf\udce9.png")])


def test_a_faulty_image_is_named_and_the_others_are_captioned(captioning, tiny_run, pictures, tmp_path):
    (pictures / "1.png").write_bytes(b"no picture")
    code, printed, complaint = captioning("caption", pictures, "--model", tiny_run, "--html", tmp_path / "page.html")
    assert (code, len(printed.splitlines()), "error: could not caption 1 of 3 inputs" in complaint) == (2, 2, True)
    page = (tmp_path / "page.html").read_text()
    assert (page.count("data:image/jpeg;base64,"), "1 input without a caption" in page) == (2, True)


def test_a_folder_without_images_is_named(captioning, tiny_run, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, complaint = captioning("caption", tmp_path / "empty", "--model", tiny_run)
    assert (code, "empty contains no image file" in complaint) == (2, True)


@pytest.mark.parametrize("job", ["caption x.jpg --model m", "evaluate m --shards s"])
def test_a_batch_or_a_beam_of_nothing_writes_no_captions_and_is_refused(captioning, job):
    code, printed, told = captioning(*job.split(), "--batch-size", 0, "--beam-size", 10**9)
    assert (code, printed) == (2, "")
    assert "beam_size 1000000000 is out of range; use 1 to 1000" in told
    assert "batch_size 0 is out of range; use 1 to 1000000" in told


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--beam-size 4 --groups 3", "groups 3 do not divide a beam_size of 4; use a divisor of the beam size"),
        (
            "--temperature 0.7 --beam-size 5",
            "beam_size 5 has no effect in sampling; leave it out, or use a temperature of",
        ),
        (
            "--top-p 0.9",
            "top_p 0.9 has no effect in beam search; leave it out, or use a temperature above 0, such as 1",
        ),
        ("--no-repeat-ngram -1", "no_repeat_ngram -1 is out of range; use 0 to 1000"),
    ],
)
@pytest.mark.parametrize("job", ["caption x.jpg --model m", "evaluate m --shards s", "register m n"])
def test_a_search_that_cannot_be_is_refused_in_one_line(captioning, job, flags, message):
    code, printed, told = captioning(*job.split(), *flags.split())
    assert (code, printed, told.startswith(f"error: {message}"), len(told.splitlines())) == (2, "", True, 1)


def test_captions_of_a_search_keep_its_constraints_and_samples_their_seed(captioning, tiny_run, pictures):
    def captions(*flags):
        code, printed, _ = captioning("caption", pictures, "--model", tiny_run, "--json", *flags)
        assert code == 0
        return [one["captions"] for one in json.loads(printed)]

    assert all(
        len(set(one.split())) == 8 for found in captions("--min-words", 8, "--no-repeat-ngram", 1) for one in found
    )
    draws = [captions("--temperature", 1, "--num-samples", 4, "--sampling-seed", seed) for seed in (1, 1, 2)]
    assert (draws[0] == draws[1], draws[0] == draws[2], {len(one) for one in draws[0]}) == (True, False, {4})


def test_hidden_files_are_no_images_and_a_name_with_a_line_break_is_one_line(captioning, tiny_run, tmp_path):
    for name in ("a\nb.jpg", "._a.jpg", ".trash/c.jpg", "folder.jpg/d.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0\5\x16\7" if name[0] == "." else encoded(picture(64, 64)))
    checkpoint = tiny_run / "checkpoints" / "step-00000005-attempt-1"
    code, printed, _ = captioning("caption", tmp_path / "in", "--model", checkpoint)
    names = [line.split("\t")[0].removeprefix(f"{tmp_path}/in/") for line in printed.splitlines()]
    assert (code, names) == (0, ["a\\nb.jpg", "folder.jpg/d.png"])


def test_what_is_named_as_an_image_in_a_folder_and_is_none_is_told(captioning, tiny_run, tmp_path):
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    code, _, told = captioning("caption", tmp_path, "--model", tiny_run)
    why = "it is a link that leads nowhere, or no ordinary file"
    assert code == 2
    assert f"could not caption 2 of 2 inputs: {tmp_path}/gone.jpg: {why}; {tmp_path}/pipe.jpg: {why}" in told


@pytest.mark.parametrize("job", [("caption", "{pictures}"), ("evaluate", "{model}", "--shards", "{shards}")])
def test_a_page_that_cannot_be_written_is_refused_before_the_work(captioning, tiny_run, drawn_shards, tmp_path, job):
    places = {"pictures": tmp_path, "model": tiny_run, "shards": drawn_shards}
    model = ("--model", "nothing") if job[0] == "caption" else ()
    code, _, told = captioning(*(word.format(**places) for word in job), *model, "--html", tmp_path)
    assert (code, told) == (2, f"error: --html {tmp_path} is a folder; name a file in it\n")
