"""The table that a run prints and the README shows."""

from statistics import median

from bench.peers.measure import CONNECTIONS, Result, Row


def markdown(result: Result) -> str:
    """The table, with the machine above it; ratios are ours to each peer's, taken within the rounds."""
    here, ours = result.machine, result.rows[-1]
    lines = [
        f"{here.cpu}, {here.cores} cores shared by all processes and the load; {here.measured_at[:10]}; load average "
        f"before: {here.load_average}. {CONNECTIONS} connections, {result.rounds} rounds of {result.seconds:g} s in "
        f"turns, medians. Commit {here.commit}.",
        "",
        "| side | does in a call | per second | p50 / p99 ms | CPU ms | BabySea is | start s | MiB idle / after |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [_line(row, ours) for row in result.rows]
    way = result.whole_way
    lines.append(
        f"| BabySea API and worker | all of it, to stored outputs and settled credits | {way.rate:,.0f} | | "
        f"{way.cpu_ms:.2f} | | | |"
    )
    return "\n".join(lines)


def ratios(ours: Row, other: Row) -> list[float]:
    """Our rate over another's, round by round."""
    return [
        mine.measured.rate / theirs.measured.rate
        for mine, theirs in zip(ours.rounds, other.rounds, strict=True)
    ]


def _line(row: Row, ours: Row) -> str:
    does = "one image from the upstream, nothing kept"
    name = f"{row.name} {row.version}".strip()
    held, started = "", "" if row.start_s is None else f"{row.start_s:.1f}"
    if row is ours:
        does = "durable admission: checked, priced, reserved, committed"
    elif row.start_s is not None:
        found = ratios(ours, row)
        held = f"**{median(found):.0f} x** ({min(found):.0f} to {max(found):.0f})"
    p50 = median(round.measured.p50_ms for round in row.rounds)
    p99 = median(round.measured.p99_ms for round in row.rounds)
    cpu_ms = median(round.cpu_ms for round in row.rounds)
    return (
        f"| {name} | {does} | {row.rate:,.0f} | {p50:,.1f} / {p99:,.1f} | {cpu_ms:.2f} | {held} | {started} | "
        f"{row.idle_mib:,.0f} / {row.loaded_mib:,.0f} |"
    )
