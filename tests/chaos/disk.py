"""A small file system that can be filled up and emptied again."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

_PIECE = bytes(1 << 20)


class SmallDisk:
    """A folder with a limit; only root may make one.

    Args:
        folder: where it is mounted; made when it is missing.
        mebibytes: its size.
    """

    def __init__(self, folder: Path, mebibytes: int) -> None:
        self.folder = folder
        self._size = mebibytes
        self._ballast = folder / "ballast"
        self._mounted = False

    def mount(self) -> bool:
        """Make it; False where that is not allowed, and then the folder is an ordinary one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={self._size}m,mode=0755", "tmpfs", str(self.folder)]
        with suppress(FileNotFoundError):
            self._mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        return self._mounted

    def fill(self) -> None:
        """Take all space that is left."""
        assert self._mounted, "a disk of the machine's own is never filled"
        with suppress(OSError), self._ballast.open("ab", buffering=0) as file:
            while os.write(file.fileno(), _PIECE):
                pass

    def free(self) -> None:
        """Give the space back."""
        self._ballast.unlink(missing_ok=True)

    def unmount(self) -> None:
        """Take it away with all that is on it."""
        if self._mounted:
            # Lazily: what a process still holds goes with the process.
            subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, check=False)
            self._mounted = False
