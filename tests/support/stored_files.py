"""Files that stand in for a checkpoint in a store."""

FILES = {"checkpoint.json": b"{}", "config.yaml": b"", "model.safetensors": bytes(2**20)}


def fill(folder):
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}
