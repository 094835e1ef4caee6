"""Processes without root's power over permissions, so that files may be forbidden to them."""

import os
import subprocess
import sys

_DROPPING = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []


def unprivileged(script, *arguments):
    """Run a script of Python; return the lines that it prints."""
    command = [*_DROPPING, sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
