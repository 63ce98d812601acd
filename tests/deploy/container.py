"""A container without a daemon: what the image and compose.yaml promise about one, kept by the kernel itself.

A mount namespace with a read-only root, an unprivileged user without capabilities, the image's environment, the
secrets of the service and nobody else's, and the names of the other services.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.deploy.files import DEPLOY, ROOT

#: The user of the image.
USER = 10001

# Its arguments: a folder with hosts, passwd, copied/ and secrets/, the folders that the interpreter and the sources
# need, up to "--", and the command. /data and /tmp are in /opt here, because nothing is made on the machine's own root.
_ENTER = r"""
set -eu
given=$1; shift
mount -t tmpfs -o mode=0755 tmpfs /mnt
number=0
private=no
needed=
while [ "$1" != -- ]; do
  number=$((number + 1))
  mkdir "/mnt/$number"
  mount --bind "$1" "/mnt/$number"
  case $1 in /root/*) private=yes; needed="$needed $number=$1" ;; esac
  shift
done
shift
# An interpreter may be installed where only root looks.
if [ $private = yes ]; then
  mount -t tmpfs -o mode=0755 tmpfs /root
  for pair in $needed; do
    mkdir -p "${pair#*=}"
    mount --bind "/mnt/${pair%%=*}" "${pair#*=}"
  done
fi
mount --bind "$given/hosts" /etc/hosts
mount --bind "$given/passwd" /etc/passwd
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir /run/secrets
for secret in "$given"/secrets/*; do
  [ -e "$secret" ] || continue
  : >"/run/secrets/${secret##*/}"
  mount --bind "$(readlink -f "$secret")" "/run/secrets/${secret##*/}"
done
mount -t tmpfs -o mode=0755 tmpfs /opt
mkdir -p /opt/babysea/bin /opt/tmp
cp "$given"/copied/* /opt/babysea/
mount --bind /mnt/1 /opt/babysea/bin
install -d -o 10001 -g 10001 -m 0700 /opt/data
mount -o remount,ro /opt
mount -t tmpfs -o mode=1777 tmpfs /opt/tmp
mount -o remount,ro,bind /
cd /opt/data
exec setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all -- "$@"
"""


def _may_unshare() -> bool:
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "setpriv", "mount"))):
        return False
    tried = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
        check=False,
    )
    return tried.returncode == 0


needs_namespaces = pytest.mark.skipif(
    not _may_unshare(), reason="a mount namespace of one's own needs root, unshare and setpriv"
)


@dataclass(frozen=True, slots=True)
class Container:
    """One container.

    Args:
        folder: an empty folder for what is mounted.
        environment: all of its variables.
        secrets: files by the name that they have in /run/secrets.
        hosts: addresses by the name of a service.
        copied: files that the image or a volume has; they are in /opt/babysea.
    """

    folder: Path
    environment: Mapping[str, str]
    secrets: Mapping[str, Path]
    hosts: Mapping[str, str]
    copied: Sequence[Path] = (DEPLOY / "docker" / "healthcheck.py",)

    def prepare(self) -> None:
        """Write what is mounted."""
        (self.folder / "secrets").mkdir(parents=True)
        for name, path in self.secrets.items():
            (self.folder / "secrets" / name).symlink_to(path)
        names = "".join(f"{address} {name}\n" for name, address in self.hosts.items())
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        user = f"babysea:x:{USER}:{USER}::/data:/usr/sbin/nologin\n"
        (self.folder / "passwd").write_text(Path("/etc/passwd").read_text() + user)
        (self.folder / "copied").mkdir()
        for path in self.copied:
            shutil.copy(path, self.folder / "copied")

    def start(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a command; what it prints, to either, goes to `log`."""
        with log.open("ab") as out:
            return subprocess.Popen(
                self._entering(command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self._variables(),
                start_new_session=True,
            )

    def run(self, command: Sequence[str], *, within_s: float = 90.0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self._entering(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=self._variables(),
            timeout=within_s,
            check=False,
        )

    def _entering(self, command: Sequence[str]) -> list[str | Path]:
        programs = Path(sys.executable).parent
        needed = [programs, Path(sys.base_prefix), programs.parent, ROOT]
        shell: list[str | Path] = ["sh", "-c", _ENTER, "sh", self.folder, *needed, "--", *command]
        return ["unshare", "--mount", "--propagation", "private", *shell]

    def _variables(self) -> dict[str, str]:
        places = {
            "BABYSEA_DATA_DIR": "/opt/data",
            "TMPDIR": "/opt/tmp",
            "HOME": "/opt/data",
            "LANG": "C.UTF-8",
        }
        return {**self.environment, **places}
