"""Parser of the HTML pages that the project writes: tags, texts and embedded images."""

import base64
from html.parser import HTMLParser

from tests.support.repository import ROOT

HOSTILE = '<script>alert("1")</script> & \' onload="x'

_OWN_SCRIPT = ROOT / "captioning" / "pages" / "templates" / "page.js"


class Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.tags, self.texts, self.scripts = [], [], []
        self._is_in_script = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._is_in_script = tag == "script"

    def handle_data(self, data):
        if self._is_in_script:
            self.scripts.append(data)
        else:
            self.texts.append(data.strip())

    def handle_endtag(self, tag):
        self._is_in_script = False

    def assert_only_own_script(self):
        """Fail if the page has another script than its own, or an attribute that runs one."""
        assert self.all("script") == [{}]
        assert self.scripts == [_OWN_SCRIPT.read_text(encoding="utf-8").rstrip("\n")]
        assert not any(attribute.startswith("on") for _, attributes in self.tags for attribute in attributes)

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def decode(uri, media_type):
    start = f"data:{media_type};base64,"
    assert uri.startswith(start)
    return base64.b64decode(uri.removeprefix(start), validate=True)
