"""Folders as Hugging Face's ``datasets`` saves them, written by pyarrow alone."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def save_dataset(
    folder: Path, rows: list[dict[str, Any]], schema: pa.Schema, *, split: str | None = None, parts: int = 1
) -> None:
    """Write what ``Dataset.save_to_disk(folder, num_shards=parts)`` writes."""
    folder.mkdir(parents=True)
    names = [f"data-{number:05d}-of-{parts:05d}.arrow" for number in range(parts)]
    size = -(-len(rows) // parts)
    for number, name in enumerate(names):
        table = pa.Table.from_pylist(rows[number * size : (number + 1) * size], schema)
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
            stream.write_table(table, 2)  # rows a batch
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0", "_format_columns": None}
    state |= {"_format_kwargs": {}, "_format_type": None, "_output_all_columns": False, "_split": split}
    (folder / "state.json").write_text(json.dumps(state, indent=2))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))


def save_dictionary(
    folder: Path, splits: dict[str, list[dict[str, Any]]], schema: pa.Schema, *, parts: int = 1
) -> None:
    """Write what ``DatasetDict.save_to_disk(folder)`` writes."""
    for split, rows in splits.items():
        save_dataset(folder / split, rows, schema, split=split, parts=parts)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
