"""Pictures in the terminal, by the protocols of kitty and of iTerm2, where the terminal says that it has one."""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from babysea.cli.output import Output

Protocol = Literal["kitty", "iterm"]

_MAX_BYTES = 16 * 1024 * 1024
_CHUNK = 4096  # characters, which kitty allows at a time
_COLUMNS = 48

_PNG = b"\x89PNG\r\n\x1a\n"
_OTHERS = (b"\xff\xd8\xff", b"GIF8", b"RIFF")


def protocol(environment: Mapping[str, str]) -> Protocol | None:
    """How the terminal takes pictures, by what it says of itself; None within a multiplexer, which swallows them."""
    if environment.get("TMUX") or environment.get("STY"):
        return None
    terminal, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if environment.get("KITTY_WINDOW_ID") or terminal in ("xterm-kitty", "xterm-ghostty"):
        return "kitty"
    if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    return "kitty" if program == "ghostty" else None


def show(output: Output, environment: Mapping[str, str], paths: list[Path], wanted: bool | None) -> None:
    """Show pictures where they can be seen; `wanted` is None when nobody said."""
    if wanted is False or output.as_json or not output.out.is_terminal:
        return
    how = protocol(environment)
    if how is None:
        if wanted:
            output.say("This terminal does not say that it can show pictures.")
        return
    for path in paths:
        if path.stat().st_size <= _MAX_BYTES:
            data = path.read_bytes()
            width = min(_COLUMNS, output.out.width)
            output.out.file.write("".join(drawn(how, data, path.name, width)))
    output.out.file.flush()


def drawn(how: Protocol, data: bytes, name: str, columns: int) -> Iterator[str]:
    """What a terminal is sent to draw a picture so many columns wide; nothing for what it cannot decode."""
    text = b64encode(data).decode()
    if how == "iterm" and data.startswith((_PNG, *_OTHERS)):
        label = b64encode(name.encode()).decode()
        yield f"\x1b]1337;File=name={label};size={len(data)};width={columns};inline=1:{text}\x07\n"
    elif how == "kitty" and data.startswith(_PNG):
        for at in range(0, len(text), _CHUNK):
            is_last = at + _CHUNK >= len(text)
            first = f"f=100,a=T,q=2,c={columns}," if at == 0 else ""
            yield f"\x1b_G{first}m={0 if is_last else 1};{text[at : at + _CHUNK]}\x1b\\"
        yield "\n"
