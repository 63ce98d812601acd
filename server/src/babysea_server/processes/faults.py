"""What may keep a process from running, without being a fault of this program."""


class StartError(RuntimeError):
    """A process cannot start; the message is one line for people and says why."""


class AlreadyRunningError(StartError):
    """Another `up` runs on this data directory."""


class StoppedError(Exception):
    """The process was told to stop before it was ready."""
