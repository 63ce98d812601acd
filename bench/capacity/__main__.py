"""`python -m bench.capacity --per-minute 1000000 --regions 3`: what such a load needs in each region.

It reckons with the costs that `python -m bench costs` left on a machine (`--costs`), by default with those of the
machine in docs/capacity.md. `--check` measures this machine and holds the model against it.
"""

import argparse
import sys
from pathlib import Path

import msgspec
import uvloop

from babysea_server.telemetry.logs import configure_logging
from bench.capacity.check import check
from bench.capacity.model import Load, Place, markdown, plan
from bench.costs import Costs

MEASURED = Path(__file__).with_name("costs.json")


def load_costs(path: Path) -> Costs:
    """The costs that a run has left.

    Raises:
        OSError, msgspec.ValidationError
    """
    return msgspec.json.decode(path.read_bytes(), type=Costs)


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments, reckon or measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description=__doc__)
    parser.add_argument("--costs", type=Path, default=MEASURED, help="a file of `python -m bench costs`")
    parser.add_argument("--check", action="store_true", help="hold the model against this machine")
    parser.add_argument("--quick", action="store_true", help="with --check: less than a minute")
    for struct in (Load, Place):
        for field in msgspec.structs.fields(struct):
            name = f"--{field.name.replace('_', '-')}"
            default = 1000.0 if field.required else field.default
            if isinstance(default, bool):
                parser.add_argument(name, action="store_true")
            else:
                parser.add_argument(name, type=type(default), default=default, help=f"({default:g})")
    given = vars(parser.parse_args(arguments))
    costs = load_costs(given["costs"])
    if given["check"]:
        configure_logging(format="console", level="warning")
        sys.stdout.write(f"{uvloop.run(check(costs, quick=given['quick']))}\n")
        return 0
    load, place = (
        msgspec.convert({name: given[name] for name in struct.__struct_fields__}, struct)
        for struct in (Load, Place)
    )
    assert isinstance(load, Load)
    assert isinstance(place, Place)
    sys.stdout.write(f"{markdown(load, plan(costs, load, place))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
