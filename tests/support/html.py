"""Parser of the HTML pages that the project writes: tags, texts and embedded images."""

import base64
from html.parser import HTMLParser

HOSTILE = '<script>alert("1")</script> & \' onload="x'


class Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data.strip())

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def decode(uri, media_type):
    start = f"data:{media_type};base64,"
    assert uri.startswith(start)
    return base64.b64decode(uri.removeprefix(start), validate=True)
