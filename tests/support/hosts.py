"""Simulated hosts on this machine: Linux namespaces for network, processes, mounts and host names.

Each host has its own address, host name, home folder and processes. Hosts reach each other through a switch, and any
link to it can be cut. They cannot reach any other network, and closing them removes everything that they made.
"""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.support.local_cluster import wait_until

_NETWORK, _SWITCH = "10.77.0", "switch"
_NAMESPACES = ("--net", "--mount", "--pid", "--uts")
_TOOLS = ("ip", "unshare", "nsenter", "setpriv")
BIN = Path(sys.executable).parent


class Host:
    """One host.

    Args:
        name: host name, by which other hosts find it.
        number: last byte of its IPv4 address.
        folder: folder on the real machine that holds the home folders of all hosts.
        environment: environment variables of its processes, in addition to those that every process needs.
    """

    def __init__(self, name: str, number: int, folder: Path, environment: Mapping[str, str]) -> None:
        self.name, self.address = name, f"{_NETWORK}.{number}"
        self.home = folder / name
        self.home.mkdir()
        self._environment = {
            "PATH": f"{BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "LANG": "C.UTF-8",
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            **environment,
        }
        self._servers: list[subprocess.Popen[bytes]] = []
        set_up = f"hostname {name} && ip link set lo up && exec sleep infinity"
        self._outer = subprocess.Popen(
            [
                "setpriv",
                "--pdeathsig",
                "KILL",
                "unshare",
                *_NAMESPACES,
                "--fork",
                "--kill-child",
                "--mount-proc",
                "sh",
                "-c",
                set_up,
            ],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.pid = int(wait_until(self._first_process, lambda: f"host {name} has started", seconds=10))

    def _first_process(self) -> str:
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
        # The shell execs sleep last, so that the host is set up once the process is called sleep.
        is_set_up = children and Path(f"/proc/{children[0]}/comm").read_text() == "sleep\n"
        return children[0] if is_set_up else ""

    def command(
        self, *arguments: str | Path, folder: Path | None = None, **variables: str
    ) -> tuple[list[str], dict[str, str]]:
        """Return the command line that runs a command on the host, and its environment.

        Args:
            arguments: command and its arguments.
            folder: working folder of the command; the host's home folder if not given.
            variables: environment variables, in addition to those of the host.
        """
        enter = ["nsenter", "--target", str(self.pid), *_NAMESPACES, f"--wd={folder or self.home}", "--"]
        return [*enter, *map(str, arguments)], {**self._environment, **variables}

    def run(self, *arguments: str | Path, seconds: float = 60, **variables: str) -> str:
        """Run a command on the host to its end, and return its standard output.

        Raises:
            AssertionError: the command exited with another code than 0.
        """
        command, environment = self.command(*arguments, **variables)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=seconds)
        assert done.returncode == 0, f"{' '.join(map(str, arguments))} on {self.name}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, *arguments: str | Path, **variables: str) -> None:
        """Start a server on the host; it logs to ``server.log`` in the host's home folder."""
        command, environment = self.command(*arguments, **variables)
        with (self.home / "server.log").open("ab") as log:
            quiet = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
            self._servers.append(subprocess.Popen(command, env=environment, **quiet))

    def answers(self, port: int) -> bool:
        """Return whether a process on the host listens on a port, by a connection from the host itself."""
        look = f"import socket; socket.create_connection(('{self.address}', {port}), 1).close()"
        command, environment = self.command(sys.executable, "-S", "-c", look)
        return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0

    def processes(self, text: str) -> list[psutil.Process]:
        """Return the processes on the host whose command line contains a text."""
        own = Path(f"/proc/{self.pid}/ns/pid").readlink()
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):  # it has ended meanwhile
                if Path(f"/proc/{process.pid}/ns/pid").readlink() == own and text in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def end(self) -> None:
        """Kill all processes of the host, as a power failure would."""
        self._outer.kill()
        for process in (self._outer, *self._servers):
            process.wait(timeout=30)


class Hosts:
    """Hosts that reach each other by name. Each host has its own folder at /srv.

    Args:
        names: names of the hosts.
        sharing: names of the hosts that mount the same folder at /mnt; /mnt of the others is empty.
        environment: environment variables of all hosts.
    """

    def __init__(self, names: Sequence[str], *, sharing: Sequence[str], environment: Mapping[str, str]) -> None:
        self._names, self._sharing, self._environment = names, sharing, environment
        self._folder = Path(tempfile.mkdtemp(prefix="h-"))  # short: Ray's sockets lie deep below it
        self.mounted = self._folder / "mnt"
        for folder in (self.mounted, self._folder / "empty"):
            folder.mkdir()
        table = "".join(f"{_NETWORK}.{number} {name}\n" for number, name in enumerate(names, start=1))
        (self._folder / "hosts").write_text(f"127.0.0.1 localhost\n{table}")
        self._hosts: dict[str, Host] = {}

    def start(self) -> None:
        """Start and connect all hosts."""
        switch = self._hosts[_SWITCH] = Host(_SWITCH, 0, self._folder, {})
        switch.run("ip", "link", "add", "bridge", "type", "bridge")
        switch.run("ip", "link", "set", "bridge", "up")
        for number, name in enumerate(self._names, start=1):
            host = self._hosts[name] = Host(name, number, self._folder, self._environment)
            self._connect(host)
            shared = self.mounted if name in self._sharing else self._folder / "empty"
            for source, target in ((self._folder / "hosts", "/etc/hosts"), (shared, "/mnt"), (host.home, "/srv")):
                host.run("mount", "--bind", source, target)

    def _connect(self, host: Host) -> None:
        switch = self._hosts[_SWITCH]
        link = ["type", "veth", "peer", "name", "eth0", "netns", str(host.pid)]
        enter = ["nsenter", "--target", str(switch.pid), "--net", "--"]  # the switch itself does not see the host's pid
        subprocess.run([*enter, "ip", "link", "add", host.name, *link], check=True)
        switch.run("ip", "link", "set", host.name, "master", "bridge", "up")
        host.run("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")

    def __getitem__(self, name: str) -> Host:
        """Return the host of a name."""
        return self._hosts[name]

    def cut(self, name: str) -> None:
        """Cut the link of a host to the switch."""
        self._hosts[_SWITCH].run("ip", "link", "set", name, "down")

    def heal(self, name: str) -> None:
        """Restore the link of a host to the switch."""
        self._hosts[_SWITCH].run("ip", "link", "set", name, "up")

    def end(self) -> None:
        """Kill all hosts and remove their folders."""
        for host in self._hosts.values():
            host.end()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def hosts_or_skip(names: Sequence[str], *, sharing: Sequence[str], environment: Mapping[str, str]) -> Iterator[Hosts]:
    """Yield running hosts; skip the test with the reason if this machine cannot create them."""
    import pytest

    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"cannot create hosts: {', '.join(missing)} not found; install iproute2 and util-linux")
    probe = subprocess.run(["unshare", *_NAMESPACES, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"cannot create hosts: {probe.stderr.strip()}; run the tests as root")
    hosts = Hosts(names, sharing=sharing, environment=environment)
    try:
        hosts.start()
        yield hosts
    finally:
        hosts.end()
