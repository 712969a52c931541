"""`bpfnic fuzz`."""

import json
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from bpfnic.spec.errors import BpfnicError

DIFFERENCE = 1
DEFAULT_SECONDS = 60
_SHOWN_ROWS = 30
_POSITIVE = click.IntRange(min=1)


@click.command(name="fuzz")
@click.option("--seconds", type=_POSITIVE, help=f"When to end; {DEFAULT_SECONDS} where nothing else says when.")
@click.option("--instructions", type=_POSITIVE, help="End when so many have been compared on golden and rtl.")
@click.option("--rounds", type=_POSITIVE, help="End after so many rounds.")
@click.option("--round", "first", type=click.IntRange(min=0), default=0, show_default=True, help="The first round.")
@click.option("--seed", type=int, default=1, show_default=True, help="What all programs and packets are made from.")
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes.")
@click.option("--mode", type=click.Choice(["all", "programs", "bytes", "linux"]), default="all", show_default=True,
              help="Programs on golden and rtl; bytes as programs on both, and to the loader; programs on golden and "
              "in the running kernel; or all of them, the last where it is permitted.")  # fmt: skip
@click.option("--cores", type=int, help="Cores of the NIC.")
@click.option("--threads", type=int, help="Hardware threads of a core.")
@click.option("--vectors", type=click.Path(path_type=Path, file_okay=False), default=Path(), metavar="DIR",
              help="Where a difference is written to, as a vector file (otherwise here).")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(seconds: int | None, instructions: int | None, rounds: int | None, first: int, seed: int, jobs: int,
            mode: str, cores: int | None, threads: int | None, vectors: Path, as_json: bool) -> int:  # fmt: skip
    """Compare golden, rtl and the kernel on random programs, and make a difference small.

    Every instruction that retires is compared, each frame, and map memory. Exit status 1 where something differs."""
    from bpfnic.host.linux.permission import unavailable
    from bpfnic.sim.fuzz.campaign import Campaign
    from bpfnic.sim.fuzz.compare import OPTIONS, the_library

    refused = unavailable()
    if mode == "linux" and refused:
        raise BpfnicError(f"the linux backend can't be used here: {refused}")
    if not vectors.is_dir():
        raise BpfnicError(f"--vectors {vectors}: no such folder")
    if seconds is instructions is rounds is None:
        seconds = DEFAULT_SECONDS
    sizes = {name: size for name, size in (("cores", cores), ("threads", threads)) if size is not None}
    options = replace(OPTIONS, **sizes)
    library = the_library(options, say=lambda step: click.echo(f"bpfnic: {step}", err=True))
    campaign = Campaign(library, seed, mode, jobs, first, seconds, instructions, rounds, refused is None, options)
    began = time.monotonic()
    with _bar(campaign) as on_round:
        tally = campaign.run(on_round)
    report = _report(campaign, tally, time.monotonic() - began, refused, _write(tally, vectors))
    click.echo(json.dumps(report, indent=2) if as_json else "\n".join(_lines(report)))
    return DIFFERENCE if tally.failures else 0


@contextmanager
def _bar(campaign: Any) -> Any:
    """A progress bar where standard error is a terminal; yields what is told of each round, or None."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    ends = ((campaign.instructions, "instructions"), (campaign.rounds, "rounds"), (campaign.seconds, "seconds"))
    total, unit = next((end, name) for end, name in ends if end is not None)
    began = time.monotonic()
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("fuzz", total=total)

        def on_round(tally: Any) -> None:
            elapsed = time.monotonic() - began
            done = elapsed if unit == "seconds" else getattr(tally, unit)
            rate = tally.instructions / elapsed
            said = f"{tally.programs:,} programs, {tally.instructions:,} instructions, {rate:,.0f} a second"
            bar.update(task, completed=done, description=said)

        yield on_round


def _write(tally: Any, folder: Path) -> dict[int, str]:
    """Writes the vectors of the failures; the path of each by its place."""
    paths = {}
    for number, failure in enumerate(tally.failures):
        if failure.vector is not None:
            path = folder / f"fuzz_{failure.mode}_{failure.seed}_{failure.round}.vec"
            try:
                path.write_text(failure.vector)
            except OSError as error:
                raise BpfnicError(f"{path}: {error.strerror}") from None
            paths[number] = str(path)
    return paths


def _report(campaign: Any, tally: Any, seconds: float, refused: str | None, paths: dict[int, str]) -> dict[str, Any]:
    from bpfnic.sim.fuzz.compare import rtl_pair
    from bpfnic.sim.fuzz.coverage import Report

    pair = rtl_pair(campaign.library, campaign.options)
    coverage = Report(pair.has, tally.hits)
    pair.close()
    compared = campaign.mode in ("all", "linux")
    return {
        "seed": campaign.seed,
        "mode": campaign.mode,
        "jobs": campaign.jobs,
        "cores": campaign.options.cores,
        "threads": campaign.options.threads,
        "first_round": campaign.first,
        "rounds": tally.rounds,
        "seconds": seconds,
        "programs": tally.programs,
        "packets": tally.packets,
        "instructions": tally.instructions,
        "instructions_a_second": round(tally.instructions / seconds),
        "causes": dict(tally.causes.most_common()),
        "loader": {"loaded": tally.loaded, "refused": tally.refused, "verified": tally.verified},
        "linux": {
            "programs": tally.kernel,
            "refused": tally.kernel_refused,
            "packets": tally.kernel_packets,
            "why_not": refused if compared else None,
        },
        "coverage": {
            "rows": len(coverage.wanted),
            "rows_covered": len(coverage.rows_hit),
            "items": coverage.all,
            "items_covered": coverage.covered,
            "missing": {name: [f"{form}: {key}" for _, form, key in items] for name, items in coverage.missing.items()},
            "unsupported": coverage.unsupported,
            "always_trap": coverage.trapping,
        },
        "failures": [
            {
                "what": failure.what,
                "command": failure.command,
                "program": failure.listing,
                "lockstep": list(failure.lines),
                "vector": paths.get(number),
                "no_vector": failure.no_vector,
            }
            for number, failure in enumerate(tally.failures)
        ],
    }


def _lines(report: dict[str, Any]) -> list[str]:
    """The report for people."""
    loader, linux, coverage = report["loader"], report["linux"], report["coverage"]
    lines = [
        f"{report['rounds']:,} rounds of seed {report['seed']}, from round {report['first_round']}, in "
        f"{report['seconds']:.1f} s by {report['jobs']} process{'es' * (report['jobs'] > 1)}",
    ]
    if report["programs"]:
        lines += [
            f"golden and rtl: {report['programs']:,} programs, {report['packets']:,} packets, "
            f"{report['instructions']:,} instructions compared, {report['instructions_a_second']:,} a second",
            "packets' ends: " + ", ".join(f"{name} {count:,}" for name, count in report["causes"].items()),
        ]
    if loader["loaded"] + loader["refused"]:
        lines.append(f"bytes to the loader: {loader['loaded']:,} programs taken, {loader['refused']:,} refused, "
                     f"{loader['verified']:,} accepted by the verifier")  # fmt: skip
    if linux["why_not"]:
        lines.append(f"the running kernel wasn't asked: {linux['why_not']}")
    elif linux["programs"] + linux["refused"]:
        lines.append(f"golden and the kernel: {linux['programs']:,} programs, {linux['packets']:,} packets; "
                     f"its verifier refused {linux['refused']:,}")  # fmt: skip
    if report["instructions"]:
        lines += _coverage_lines(coverage)
    for failure in report["failures"]:
        lines += ["", failure["what"], *(f"    {line}" for line in failure["program"]), *failure["lockstep"]]
        lines.append(f"repeat it: {failure['command']}")
        lines.append(f"vector: {failure['vector'] or 'none: ' + failure['no_vector']}")
    lines.append("no difference" if not report["failures"] else f"{len(report['failures'])} found")
    return lines


def _coverage_lines(coverage: dict[str, Any]) -> list[str]:
    missing = coverage["missing"]
    left = coverage["items"] - coverage["items_covered"]
    lines = [f"coverage: {coverage['rows_covered']} of {coverage['rows']} rows, {coverage['items_covered']:,} of "
             f"{coverage['items']:,} of row × form × class"]  # fmt: skip
    if coverage["unsupported"]:
        lines.append(f"not on this device: {', '.join(coverage['unsupported'])}")
    if coverage["always_trap"]:
        lines.append(f"always trap: {', '.join(coverage['always_trap'])}")
    for name, items in list(missing.items())[:_SHOWN_ROWS]:
        shown = "; ".join(items[:4]) + (f" and {len(items) - 4} more" if len(items) > 4 else "")
        lines.append(f"  not covered: {name}: {shown}")
    if len(missing) > _SHOWN_ROWS:
        lines.append(f"  … and {len(missing) - _SHOWN_ROWS} more rows (--json lists all; {left:,} in all)")
    return lines
