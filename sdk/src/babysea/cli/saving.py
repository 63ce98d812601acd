"""Where the files of a generation go: found out, and tried, before anything is bought."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from babysea import BabySea, Generation, LibraryModel
from babysea._media import SUFFIXES
from babysea.cli.faults import CommandError

_FORMAT = "generation_output_format"
_SAME = {"jpeg": "jpg"}


@dataclass(frozen=True, slots=True)
class Target:
    """A folder, and the beginning of the names of several files in it, or one file; as was asked for."""

    asked: str
    folder: Path
    file: Path | None
    overwrite: bool

    def save(self, client: BabySea, generation: Generation) -> list[Path]:
        """Bring the files there.

        Raises:
            BabySeaError, OSError: that cannot be done.
        """
        if self.file is None:
            return client.download(generation, self.folder, overwrite=self.overwrite)
        if len(generation.urls) == 1:
            return client.download(generation, self.file, overwrite=self.overwrite)
        return client.download(generation, self.folder, overwrite=self.overwrite, name=self.file.stem)


def target(asked: Path | None, *, overwrite: bool, count: int = 1) -> Target:
    """Where files go that are still to be made, so many of them.

    Raises:
        CommandError: there is no room for them.
        OSError: the folder cannot be made.
    """
    text = "" if asked is None else str(asked)
    file = (
        asked if asked is not None and asked.suffix[1:].lower() in SUFFIXES and not asked.is_dir() else None
    )
    folder = file.parent if file is not None else asked or Path()
    if file is not None and not overwrite:
        names = [file] if count == 1 else [folder / f"{file.stem}-{n + 1}{file.suffix}" for n in range(count)]
        for name in names:
            if name.exists():
                raise CommandError(f"{name} is there already", "Name another, or add --overwrite.")
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise CommandError(f"{folder} cannot be written to")
    return Target(text, folder, file, overwrite)


def with_format(place: Target, model: LibraryModel | None, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields, with the format that the file's name says.

    Raises:
        CommandError: the model does not make it, or another was asked for.
    """
    made = model.schema.generation_output_format if model is not None else ()
    if place.file is None or not made:
        return fields
    ending = place.file.suffix[1:].lower()
    asked = fields.get(_FORMAT)
    found = next((one for one in made if _plain(one) == _plain(ending)), None)
    if found is None or (asked is not None and _plain(str(asked)) != _plain(ending)):
        makes = str(asked) if found is not None else ", ".join(made)
        raise CommandError(
            f"{place.file.name} does not end like what is made: {makes}", "Name the file accordingly."
        )
    return {**fields, _FORMAT: found}


def _plain(ending: str) -> str:
    return _SAME.get(ending.lower(), ending.lower())
