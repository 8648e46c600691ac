"""Runs one unit file of the suite against a port and reads what it printed.

A unit is run with `--durable`, so that an exception fails one test and not the rest of the file. A test that makes no
progress is found by the suite's own watchdog; the unit is then run again without it, on fresh servers, a few times.
"""

import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field

from servers import Servers, StartFailure, die_with_parent

STALLS_MAX = 4
# The suite's own server takes a free port of the 32 below --baseport whose neighbour 10,000 above is free too. Left to
# itself it looks in a fixed place, where two runs on one machine meet; these are below the ports the kernel hands out.
BASEPORTS = range(12_000, 22_000, 32)
OUTSIDE = "(outside a test)"

EVENT = re.compile(r"^\[(ok|err|exception|skip|ignore|TIMEOUT|\d+/\d+ done)\]: ?(.*)$")
OK = re.compile(r"^(.*) \(\d+ ms\)$")
STALLED = re.compile(r"=> \((IN PROGRESS|[A-Z ]+)\) (.*)$")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Outcome:
    """What one unit did. `passed` counts names, since some names occur more than once."""

    unit: str
    passed: Counter = field(default_factory=Counter)
    failures: list = field(default_factory=list)  # (test name, the suite's text)
    deaths: list = field(default_factory=list)  # servers that ended by themselves, as a sentence each
    retried: set = field(default_factory=set)  # names that passed only when the unit was tried again
    finished: bool = False
    stalled: str = ""
    seconds: float = 0.0


def parse(unit, text):
    outcome = Outcome(unit)
    failing = None
    for line in text.split("\n"):
        line = ANSI.sub("", line)
        if line.strip() == "The End":
            break
        event = EVENT.match(line)
        if not event:
            if stalled := STALLED.search(line):
                state, name = stalled.groups()
                if state == "IN PROGRESS":
                    outcome.stalled = name
                else:
                    outcome.failures.append((OUTSIDE, f"no progress after: {name}"))
            elif failing is not None and not line.startswith(("Testing ", "[ready]")):
                outcome.failures[failing] = (outcome.failures[failing][0], outcome.failures[failing][1] + "\n" + line)
            continue
        kind, rest = event.groups()
        failing = None
        if kind == "ok" and (ok := OK.match(rest)):
            outcome.passed[ok.group(1)] += 1
        elif kind in ("err", "exception"):
            name, found, _ = rest.partition(f" in tests/{unit}.tcl")
            outcome.failures.append((name if found else OUTSIDE, rest))
            failing = len(outcome.failures) - 1
        elif kind.endswith("done"):
            outcome.finished = True
    return outcome


def run(unit, options, skip=()):
    """Runs `unit`, going round stalled tests; the outcome is the best of what could be seen."""
    skipped, stalls = list(skip), []
    started = time.monotonic()
    while True:
        outcome = run_once(unit, options, skipped)
        if not outcome.stalled:
            break
        stalls.append((outcome.stalled, f"no progress for {options.stall_seconds} s: given up"))
        skipped.append(outcome.stalled)
        if len(stalls) >= STALLS_MAX or time.monotonic() - started > options.unit_seconds:
            break
    outcome.failures += stalls
    if not outcome.finished and not (stalls and outcome.stalled):
        outcome.failures.append((OUTSIDE, "the unit did not reach its end"))
    outcome.seconds = time.monotonic() - started
    return outcome


def again(first, options, skip, wanted):
    """Runs a unit once more for the names in `wanted`; what it brings is added and remembered as retried."""
    second = run(first.unit, options, skip)
    healed = {name for name in wanted if second.passed[name] > first.passed[name]}
    for name in healed:
        first.passed[name] = second.passed[name]
    first.retried |= healed
    first.failures += [(name, text) for name, text in second.failures if name in wanted]
    first.seconds += second.seconds


def run_once(unit, options, skipped):
    stem = options.logs / unit.replace("/", "-")
    try:
        with Servers(stem, options.scratch, options.proxy) as servers:
            text = runtest(unit, servers.port, options, skipped)
            deaths = servers.deaths()
    except StartFailure as failure:
        return Outcome(unit, failures=[(OUTSIDE, str(failure))])
    with open(f"{stem}.log", "a") as log:
        log.write(text)
    outcome = parse(unit, text)
    outcome.deaths = deaths
    outcome.failures += [(OUTSIDE, death) for death in deaths]
    return outcome


def runtest(unit, port, options, skipped):
    command = ["./runtest", "--host", "127.0.0.1", "--port", str(port), "--tags", "-slow", "--clients", "1",
               "--durable", "--timeout", str(options.stall_seconds), "--single", unit,
               "--baseport", str(random.choice(BASEPORTS))]
    for name in skipped:
        command += ["--skiptest", name]
    process = subprocess.Popen(
        command, cwd=options.suite, env={**os.environ, "TERM": "dumb", "LC_ALL": "C.UTF-8"}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=die_with_parent,
    )
    try:
        output, _ = process.communicate(timeout=options.unit_seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        output += f"\n[err]: the unit took longer than {options.unit_seconds} s\n".encode()
    finally:
        # The suite's own worker outlives it when it is killed or its watchdog fires.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return output.decode("utf-8", "backslashreplace")
