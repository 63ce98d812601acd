"""`python -m bench.peers`: installs LiteLLM's proxy and Portkey's gateway, and drives them and us side by side.

Installs into a temporary folder (or `--folder`, kept for the next run). As root on Linux everything then runs in a
network namespace that has the loopback interface and nothing else, so that no side can ask anything of the world; else
proxies that lead nowhere are set. Needs `wrk`, `node` and `npm`. A whole run takes some five minutes, `--quick` two.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import uvloop

from babysea_server.telemetry.logs import configure_logging
from bench.load import LoadError
from bench.peers.measure import measure
from bench.peers.sides import InstallError, install
from bench.peers.table import markdown
from bench.report import RESULTS

_NEEDED = ("wrk", "node", "npm")


def main() -> int:
    """Parse the arguments, install, and measure in a namespace of its own."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 rounds of 3 s instead of 5 of 10")
    parser.add_argument("--folder", type=Path, help="install here and keep it (a temporary folder)")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if missing:
        sys.stderr.write(f"bench.peers: not found: {', '.join(missing)}\n")
        return 1
    configure_logging(format="console", level="warning")
    try:
        if given.alone:
            return _measure(given.folder, quick=given.quick)
        with tempfile.TemporaryDirectory(prefix="babysea-peers-") as name:
            folder = Path(given.folder or name).absolute()
            folder.mkdir(parents=True, exist_ok=True)
            install(folder)
            return _alone(folder, quick=given.quick)
    except (InstallError, LoadError, RuntimeError) as error:
        sys.stderr.write(f"bench.peers: {error}\n")
        return 1


def _alone(folder: Path, *, quick: bool) -> int:
    command = [sys.executable, "-m", "bench.peers", "--alone", "--folder", str(folder)]
    command += ["--quick"] if quick else []
    if sys.platform == "linux" and os.geteuid() == 0 and shutil.which("unshare") and shutil.which("ip"):
        inside = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]
        command = ["unshare", "--net", "--", *inside]
    return subprocess.run(command, check=False).returncode


def _measure(folder: Path, *, quick: bool) -> int:
    rounds, seconds = (3, 3.0) if quick else (5, 10.0)
    result = uvloop.run(measure(folder, rounds=rounds, seconds=seconds))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"peers-{result.machine.measured_at.replace(':', '')[:17]}Z.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
    sys.stdout.write(f"{markdown(result)}\n\nEvery round: {path}\n")
    return 1 if any(row.faults for row in result.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
