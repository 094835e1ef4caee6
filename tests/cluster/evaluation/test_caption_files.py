"""Files of captions are read whatever their form; ``tests/jobs/test_score.py`` has those that are refused."""

import json

import pyarrow as pa
import pyarrow.parquet

from cluster.evaluation.caption_files import read_references, read_results


def test_results_of_every_form_are_the_same(tmp_path):
    rows = [{"image_id": "7", "caption": "A dog."}, {"image_id": "a.jpg", "caption": "A cat."}]
    (tmp_path / "r.json").write_text(json.dumps([{**rows[0], "image_id": 7}, rows[1]]))
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "r.tsv").write_text("image_id\tcaption\n7\tA dog.\na.jpg\tA cat.\n")
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "r.parquet")
    for path in tmp_path.iterdir():
        assert read_results(path) == {7: "A dog.", "a.jpg": "A cat."}, path


def test_references_are_rows_or_lists(tmp_path):
    (tmp_path / "rows.csv").write_text("image_id,caption\n7,A dog.\n7,One dog.\n")
    (tmp_path / "lists.jsonl").write_text('{"image_id": 7, "captions": ["A dog.", "One dog."]}')
    for path in tmp_path.iterdir():
        assert read_references(path, "val") == {7: ["A dog.", "One dog."]}
