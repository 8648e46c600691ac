"""The baseline, the exceptions and the verdict: what a run is compared with and how it is told."""

from collections import Counter
from dataclasses import dataclass, field

PASS_SHARE_MIN = 0.97
# Some tests lean on the order in which Redis hears of two connections, which no proxy can promise, or on the clock. A few may
# therefore pass only when their unit is tried again (twice at most); more than a few is a fault of the proxy.
RETRIED_MAX = 4
SILENT_SHOWN_MAX = 5


class BadList(Exception):
    """A line of one of the lists that cannot be meant."""


def rows(path, columns):
    """The tab-separated rows of a list; empty lines and lines beginning with # are left out."""
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            cells = line.split("\t")
            if not columns[0] <= len(cells) <= columns[1] or not all(cells):
                raise BadList(f"{path.name}:{number}: {columns[0]} to {columns[1]} cells separated by tabs, got {line!r}")
            found.append(cells)
    return found


def read_baseline(path):
    """unit -> Counter of the names that pass when Redis is asked directly."""
    baseline = {}
    for unit, name, *times in rows(path, (2, 3)):
        baseline.setdefault(unit, Counter())[name] = int(times[0]) if times else 1
    return baseline


def write_baseline(path, runs):
    """What passed in every one of `runs` (each unit -> Counter); what passed in only some is named as flaky."""
    units = sorted(runs[0])
    lines, flaky = [], []
    for unit in units:
        always, ever = runs[0][unit], runs[0][unit]
        for run in runs[1:]:
            always, ever = always & run[unit], ever | run[unit]
        lines += [f"{unit}\t{name}" + (f"\t{times}" if times > 1 else "") for name, times in sorted(always.items())]
        flaky += [f"# flaky\t{unit}\t{name}" for name in sorted(ever - always)]
    head = [
        f"# Tests of Redis's own suite that pass in external mode when Redis is asked directly, in {len(runs)} of {len(runs)} runs.",
        "# Written by tests/compat/run --record; unit, name, and how often the name occurs where that is not once.",
    ]
    path.write_text("\n".join(head + flaky + lines) + "\n")
    return flaky


def read_exceptions(path, baseline):
    """(unit, name) -> reason; every one must name a test of the baseline."""
    exceptions = {}
    for unit, name, reason in rows(path, (3, 3)):
        if name not in baseline.get(unit, {}):
            raise BadList(f"{path.name}: the baseline has no test {name!r} in {unit}")
        exceptions[unit, name] = reason
    return exceptions


@dataclass
class Verdict:
    """The comparison of some outcomes with their part of the baseline."""

    expected: int = 0
    passed: int = 0
    excepted: list = field(default_factory=list)  # (unit, name, reason)
    missing: list = field(default_factory=list)  # (unit, name)
    healed: list = field(default_factory=list)  # exceptions that pass
    retried: list = field(default_factory=list)  # (unit, name) that passed only when tried again
    deaths: list = field(default_factory=list)  # servers that ended by themselves
    table: list = field(default_factory=list)  # (unit, passed, expected, missing, seconds)

    @property
    def share(self):
        return self.passed / self.expected if self.expected else 0.0

    @property
    def good(self):
        enough = self.share >= PASS_SHARE_MIN and not self.missing
        return enough and not self.deaths and len(self.retried) <= RETRIED_MAX


def lost(outcome, baseline, exceptions):
    """The tests of the baseline that an outcome lacks and nothing excuses."""
    gone = baseline[outcome.unit] - outcome.passed
    return {name for name in gone if (outcome.unit, name) not in exceptions}


def compare(outcomes, baseline, exceptions):
    verdict = Verdict()
    for outcome in outcomes:
        expected = baseline[outcome.unit]
        passed = outcome.passed & expected
        gone = expected - passed
        verdict.expected += expected.total()
        verdict.passed += passed.total()
        verdict.table.append((outcome.unit, passed.total(), expected.total(), gone.total(), outcome.seconds))
        verdict.deaths += outcome.deaths
        verdict.retried += [(outcome.unit, name) for name in sorted(outcome.retried)]
        for name in expected:
            reason = exceptions.get((outcome.unit, name))
            if name in gone and reason:
                verdict.excepted.append((outcome.unit, name, reason))
            elif name in gone:
                verdict.missing.append((outcome.unit, name))
            elif reason:
                verdict.healed.append((outcome.unit, name))
    return verdict


def tell(outcomes, verdict):
    print(f"\n{'unit':32} {'passed':>7} {'baseline':>9} {'missing':>8} {'seconds':>8}")
    for unit, passed, expected, missing, seconds in verdict.table:
        print(f"{unit:32} {passed:7} {expected:9} {missing or '':>8} {seconds:8.1f}")
    seconds = sum(row[-1] for row in verdict.table)
    print(f"{'total':32} {verdict.passed:7} {verdict.expected:9} {verdict.expected - verdict.passed or '':>8} {seconds:8.1f}")

    wanted = {(unit, name) for unit, name in verdict.missing}
    excepted = {(unit, name) for unit, name, _ in verdict.excepted}
    known = wanted | excepted
    tell_failures("Other failures (outside the baseline, or passed when tried again)", outcomes, lambda key: key not in known)
    for unit, name in verdict.retried:
        print(f"passed only when tried again (at most {RETRIED_MAX} may): {unit}: {name}")
    for unit, name, reason in verdict.excepted:
        print(f"exception: {unit}: {name}: {reason}")
    for unit, name in verdict.healed:
        print(f"warning: passes now, take it out of exceptions.txt: {unit}: {name}")
    # Last, because of a long log people keep the end.
    tell_failures("Missing", outcomes, lambda key: key in wanted, wanted)
    print(
        f"\n{verdict.share:.2%} of the baseline\n{verdict.passed} passed, {len(verdict.missing)} failed, "
        f"{len(verdict.excepted)} exceptions, {len(verdict.retried)} tried again"
    )


def tell_failures(title, outcomes, pick, expected=frozenset()):
    """What was said of the failures that `pick` picks, and which of `expected` nothing was said of."""
    told = [(o.unit, name, text) for o in outcomes for name, text in o.failures if pick((o.unit, name))]
    silent = expected - {(unit, name) for unit, name, _ in told}
    if told or silent:
        print(f"\n{title}:")
    for unit, name, text in told:
        print(f"  {unit}: {name}\n    " + "\n    ".join(text.strip().splitlines()[1:] or [text]))
    for unit in sorted({unit for unit, _ in silent}):
        names = sorted(name for other, name in silent if other == unit)
        more = f" and {len(names) - SILENT_SHOWN_MAX} more" if len(names) > SILENT_SHOWN_MAX else ""
        print(f"  {unit}: not reached: " + "; ".join(names[:SILENT_SHOWN_MAX]) + more)
