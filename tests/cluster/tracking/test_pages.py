from cluster.tracking.pages import log_page, run_address
from tests.support.case_table import each_case


@each_case(
    ("uri", "run_id", "address"),
    [
        ("http://mlflow:5000/", "abc", "http://mlflow:5000/#/runs/abc"),
        ("sqlite:///runs/mlflow.db", "abc", ""),
        ("http://mlflow:5000", "", ""),
    ],
)
def test_only_a_server_has_pages_of_runs(uri, run_id, address):
    assert run_address(uri, run_id) == address


def test_a_page_is_an_artifact_of_its_run(client, tmp_path):
    run_id = client.create_run("0").info.run_id
    page = tmp_path / "run.html"
    page.write_text("<p>page")
    assert log_page(client, run_id, page)
    assert log_page(client, run_id, page, "versions/m-1")
    assert [one.path for one in client.list_artifacts(run_id)] == ["run.html", "versions"]
    assert [one.path for one in client.list_artifacts(run_id, "versions/m-1")] == ["versions/m-1/run.html"]


def test_a_tracker_that_does_not_take_a_page_is_a_warning(client, tmp_path, caplog):
    (tmp_path / "run.html").touch()
    assert not log_page(client, "0" * 32, tmp_path / "run.html")
    assert "the tracker does not accept" in caplog.text
