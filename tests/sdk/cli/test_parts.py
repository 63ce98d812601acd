"""The parts that need no server: tables, inputs, the journal, hints, pictures, words for numbers."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from tests.docs.pages import ROOT

from babysea import (
    GenerationFailedError,
    GenerationTimeoutError,
    InvalidInputError,
    LibraryModel,
    RateLimitError,
)
from babysea._reading import read_record
from babysea.cli import catalog, fields, pictures
from babysea.cli.faults import CommandError, as_record, exit_code, hint_for
from babysea.cli.journal import KEY_KNOWN_S, NAME, Journal
from babysea.cli.output import cell, in_credits, seconds, short
from babysea.cli.rows import read_rows
from babysea.cli.saving import target, with_format

PNG = b"\x89PNG\r\n\x1a\n"


def model(**schema: Any) -> LibraryModel:
    """A model that makes videos for 0.1 a second."""
    value = {
        "model_type": "video",
        "model_identifier": "lab/clip",
        "model_pricing": {"720p": 0.1, "1080p": 0.2},
        "model_supported_provider": ["fal"],
        "schema": {"generation_prompt": True, **schema},
    }
    return read_record(LibraryModel, value, "model")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("generation_seed", "7", 7),
        ("generation_scale", "0.5", 0.5),
        ("generation_raw", "true", True),
        ("generation_style", "vivid", "vivid"),
        ("generation_style", '"7"', "7"),
        ("generation_prompt", "7", "7"),
        ("generation_ratio", "1", "1"),
        ("generation_input_file", "http://a http://b", ["http://a", "http://b"]),
        ("generation_input_file", '["http://a"]', ["http://a"]),
        ("generation_style", "a=b", "a=b"),
    ],
)
def test_an_input_is_json_where_it_is_json(name: str, text: str, value: object) -> None:
    assert fields.given([f"{name.removeprefix('generation_')}={text}"]) == {name: value}
    assert fields.given([f"{name}={text}"]) == {name: value}


@pytest.mark.parametrize("pairs", [["seed"], ["=7"], [" =7"], ["seed=1", "generation_seed=2"]])
def test_what_is_no_input_is_refused(pairs: list[str]) -> None:
    with pytest.raises(CommandError):
        fields.given(pairs)


def test_a_length_that_has_to_be_chosen_is_the_shortest() -> None:
    clip = model(generation_duration=[10, 5])
    assert fields.with_duration(clip, {}) == {"generation_duration": 5}
    assert fields.with_duration(clip, {"generation_duration": 10}) == {"generation_duration": 10}
    assert fields.with_duration(None, {}) == {}
    assert not fields.is_measured(clip)
    assert fields.is_measured(model())
    assert catalog.prices(clip) == "720p 0.1, 1080p 0.2 a second"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no rows"),
        ("prompt\n\n", "has no rows"),
        ("prompt,prompt\na,b\n", "two have the same"),
        ("prompt,generation_prompt\na,b\n", "two have the same"),
        ("prompt,\na,b\n", "a column has no name"),
        ("prompt\na,b\n", "line 2 has not as many values"),
        ("prompt,name\na\n", "line 2 has not as many values"),
        ("prompt,name\na,../x\n", "line 2: '../x' cannot be the name of a file"),
        ("prompt,name\na,.x\n", "cannot be the name of a file"),
        ("prompt,name\na,x\nb,X\n", "lines 2 and 3 would make the same file X"),
        ("prompt,name,output_number\na,x,2\nb,x-2,1\n", "lines 2 and 3 would make the same file x-2"),
        ("prompt,model\na,Sandbox\n", "line 2: a model is identified by"),
        ('prompt\n"a\n', "is not a CSV file"),
        ("prompt\n\xff\n", "is not a CSV file"),
    ],
)
def test_a_fault_of_a_table_is_told_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(CommandError, match=said):
        read_rows(path, "sandbox/image")


def test_rows_keep_their_identity_wherever_they_stand(tmp_path: Path) -> None:
    def ids(text: str) -> dict[str, str]:
        path = tmp_path / "rows.csv"
        path.write_text(text, encoding="utf-8")
        return {row.id: row.name for row in read_rows(path, "sandbox/image")}

    first = ids("prompt\na\nb\n")
    assert ids("generation_prompt,name\nb,\na,\n") == first
    assert ids("\ufeffprompt\na\nb\n") == first
    assert len(set(ids("prompt\na\na\na\n").values())) == 3
    assert not set(ids("prompt,seed\na,1\n")) & set(first)


def test_a_journal_is_read_again_as_it_was_left(tmp_path: Path) -> None:
    with Journal(tmp_path, "me") as journal:
        key = journal.key("a")
        assert journal.key("a") == key
        journal.accepted("a", "id-a")
        journal.key("b")
        journal.done("b", ["b.png"])
        refused = journal.key("c")
        journal.failed("c", "BSE4001")
    with (tmp_path / NAME).open("a") as file:
        file.write('{"row": "a", "do')  # killed while writing
    with Journal(tmp_path, "me") as again:
        assert again.entries == journal.entries
        assert again.entries["a"].generation_id == "id-a"
        assert again.entries["b"].done
        assert again.key("c") != refused
    with Journal(tmp_path, "me") as last:
        assert set(last.entries) == {"a", "b", "c"}


def test_a_key_is_on_the_disk_before_it_is_known(tmp_path: Path) -> None:
    with Journal(tmp_path, "me") as journal:
        assert journal.key("a") in (tmp_path / NAME).read_text()


def test_a_journal_belongs_to_one_run_and_one_account(tmp_path: Path) -> None:
    with Journal(tmp_path, "me"), pytest.raises(CommandError, match="another batch is working"):
        Journal(tmp_path, "me")
    with pytest.raises(CommandError, match="another account"):
        Journal(tmp_path, "you")
    Journal(tmp_path, "me").__exit__(None, None, None)


def test_a_key_is_trusted_as_long_as_the_server_knows_it(tmp_path: Path) -> None:
    now = [1000.0]
    with Journal(tmp_path, "me", lambda: now[0]) as journal:
        for row in ("sent", "accepted", "done"):
            journal.key(row)
        journal.accepted("accepted", "id")
        journal.done("done", [])
        now[0] += KEY_KNOWN_S
        assert not journal.is_lost("sent")
        now[0] += 1
        assert [row for row in journal.entries if journal.is_lost(row)] == ["sent"]
        assert not journal.is_lost("never")


def test_hints_say_what_to_do() -> None:
    assert hint_for(RateLimitError("x", retry_after=12.0)) == "Try again in 12 s."
    assert "babysea download g1" in hint_for(GenerationTimeoutError("x", generation_id="g1"))
    assert hint_for(GenerationFailedError("x", code="BSE2006")).startswith("You were not charged. Say it")
    assert exit_code(InvalidInputError("x")) == 2
    assert exit_code(InvalidInputError("x", status=400)) == 1
    assert as_record(ValueError()) == {"code": None, "message": "ValueError"}


def test_every_code_with_a_hint_is_one_of_the_api() -> None:
    from babysea.cli.faults import _BY_CODE

    page = (ROOT / "docs" / "errors.md").read_text()
    assert all(code in page for code in _BY_CODE)


def test_kitty_gets_a_picture_in_pieces() -> None:
    data = PNG + bytes(range(256)) * 40
    *pieces, end = pictures.drawn("kitty", data, "x.png", 40)
    assert end == "\n"
    assert pieces[0].startswith("\x1b_Gf=100,a=T,q=2,c=40,m=1;")
    assert all(";" in piece and "m=1" in piece for piece in pieces[:-1])
    assert "m=0" in pieces[-1]
    sent = "".join(piece.partition(";")[2].removesuffix("\x1b\\") for piece in pieces)
    assert base64.b64decode(sent) == data
    assert list(pictures.drawn("kitty", b"\xff\xd8\xff", "x.jpg", 40)) == []


def test_iterm_gets_a_picture_whole() -> None:
    (drawn,) = pictures.drawn("iterm", PNG, "x.png", 40)
    assert drawn.startswith("\x1b]1337;File=")
    assert f"size={len(PNG)};width=40;inline=1:" in drawn
    assert drawn.endswith("\x07\n")
    assert list(pictures.drawn("iterm", b"<svg>", "x.svg", 40)) == []


def test_the_name_of_a_file_says_its_format(tmp_path: Path) -> None:
    makes = model(generation_output_format=["png", "jpeg"])
    place = target(tmp_path / "new" / "x.jpg", overwrite=False)
    assert (tmp_path / "new").is_dir()
    assert with_format(place, makes, {}) == {"generation_output_format": "jpeg"}
    assert with_format(place, None, {}) == {}
    assert with_format(target(tmp_path, overwrite=False), makes, {}) == {}
    with pytest.raises(CommandError, match="png, jpeg"):
        with_format(target(tmp_path / "x.webp", overwrite=False), makes, {})


def test_words_for_numbers() -> None:
    assert in_credits(1) == "1 credit"
    assert in_credits(0.000001) == "0.000001 credits"
    assert in_credits(0.1 + 0.2) == "0.3 credits"
    assert [seconds(time) for time in (0.04, 59.9, 61, 3661)] == ["0.0 s", "59.9 s", "1 min 1 s", "1 h 1 min"]
    assert short("a" * 50, 10) == "aaaaaaa..."
    assert cell("a\x1b[31m\u202e\n b") == "a\\x1b[31m\\u202e b"
    assert cell(None) == "-"
    assert json.loads(json.dumps(cell(["a", 1]))) == "a, 1"
