"""`docs/errors.md`, made from the table of errors: `python -m babysea_server.contract.error_page`."""

from collections.abc import Iterator, Mapping

from babysea_server.errors import ERRORS, ErrorSpec

_HEAD = """\
# Errors

Every error answer under `/v1` has this shape; `details` and `provider_errors` only where there is something to say:

```json
{
  "status": "error",
  "request_id": "req_8f14e45fceea167a5a36dedd",
  "error": {
    "code": "BSE2001",
    "type": "invalid_input",
    "message": "A sentence that says what would be right.",
    "retryable": false,
    "details": {"field": "generation_ratio"}
  }
}
```

Decide by `code`: it never changes its meaning, while messages may. `retryable` is true only when repeating the very
same request can succeed **and cannot buy twice**, so a client may repeat whatever carries it. `BSE2002` to `BSE2009`,
`BSE4001` to `BSE4010`, `BSE5003` and `BSE5004` are mostly met as the `generation_error_code` of a failed generation,
which is always refunded whole.

This page is made from [`errors.py`](../server/src/babysea_server/errors.py), which also makes the answers: change the
table, then run `python -m babysea_server.contract.error_page > docs/errors.md`. The OpenAPI document has the same
table, with an example of each.
"""

#: Headings by the code's first digit.
_SECTIONS: Mapping[str, str] = {
    "1": "Keys, credits and limits",
    "2": "The request and its files",
    "3": "Generations",
    "4": "Providers",
    "5": "The server",
}


def error_page() -> str:
    """The page, in Markdown; one row per code."""
    return "\n".join((_HEAD.rstrip("\n"), *_tables(), ""))


def _tables() -> Iterator[str]:
    for digit, heading in _SECTIONS.items():
        yield f"\n## {heading}\n"
        yield "| code | type | HTTP | retryable | when | what to do |"
        yield "|---|---|---|---|---|---|"
        yield from (_row(spec) for spec in ERRORS.values() if spec.code[len("BSE")] == digit)


def _row(spec: ErrorSpec) -> str:
    retryable = "yes" if spec.retryable else "no"
    cells = (f"`{spec.code}`", f"`{spec.type}`", str(spec.status), retryable, spec.when, spec.remedy)
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(error_page(), end="")
