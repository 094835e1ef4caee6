"""Chromium without a window, driven over its debugging pipe: it shows pages, and says what is in them."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="there is no chromium on the path")


class Browser:
    """A browser with one tab; close it by leaving the context."""

    def __enter__(self):
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # The program reads commands from file 3 and writes answers to file 4.
        shell = f'exec 3<&{theirs_in} 4>&{theirs_out}; exec "$0" "$@"'
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                 "--disable-background-networking", "--remote-debugging-pipe",
                 f"--user-data-dir={self._profile}"]  # fmt: skip
        self._process = subprocess.Popen(
            ["bash", "-c", shell, PROGRAM, *flags, "about:blank"],
            pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in), os.close(theirs_out)
        self._unread, self._number, self._session, self.errors = b"", 0, None, []
        targets = self.call("Target.getTargets")["targetInfos"]
        tab = next(one["targetId"] for one in targets if one["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()
        os.close(self._in), os.close(self._out)
        shutil.rmtree(self._profile, ignore_errors=True)

    def call(self, method, **params):
        """Call a method of the DevTools protocol and return its result; errors of the page are collected meanwhile."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            self._note(answer)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _note(self, event):
        if event.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.errors.append(event["params"])
        self._loaded = event.get("method") == "Page.loadEventFired" or getattr(self, "_loaded", False)

    def _read(self):
        while b"\0" not in self._unread:
            content = os.read(self._in, 2**16)
            assert content, "chromium has ended"
            self._unread += content
        first, _, self._unread = self._unread.partition(b"\0")
        return json.loads(first)

    def open(self, page, *, width=1280, theme="light"):
        """Show a page, at a width in pixels and in a theme."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setScrollbarsHidden", hidden=True)
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self._loaded = False
        address = str(page) if "://" in str(page) else Path(page).absolute().as_uri()
        self.call("Page.navigate", url=address)
        while not self._loaded:
            self._note(self._read())
        return self

    def run(self, script):
        """Return the value of a JavaScript expression in the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def shoot(self, path, *, longest=6000):
        """Write a picture of the whole page, up to a height in pixels."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], longest), "scale": 1}
        found = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        Path(path).write_bytes(base64.b64decode(found["data"]))
