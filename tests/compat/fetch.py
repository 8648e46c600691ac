"""Gets Redis's own test suite: Debian's source package of the redis-server that is installed.

The package is fetched with apt through the machine's own Debian entries, asked for sources instead of binaries in a
private apt directory, so nothing of the system's configuration changes and no address is written here.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

VERSION = "7.0.15"
TOOLS = ("server", "cli", "benchmark", "check-aof", "check-rdb")


class Unavailable(Exception):
    """The suite or a program it needs cannot be had on this machine."""


def suite(target):
    """The directory of the unpacked suite under `target`, fetched the first time."""
    need_programs()
    home = target / "redis-suite"
    tree = home / f"redis-{VERSION}"
    if not (tree / "runtest").exists():
        fetch(home, tree)
    for tool in TOOLS:
        link = tree / "src" / f"redis-{tool}"
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(shutil.which(f"redis-{tool}"))
    return tree


def all_units(tree):
    """The unit files the suite itself lists, in its order."""
    helper = (tree / "tests/test_helper.tcl").read_text()
    return re.search(r"set ::all_tests \{(.*?)\}", helper, re.S).group(1).split()


def need_programs():
    packages = {"redis-server": "redis-server", "redis-cli": "redis-tools", "tclsh": "tcl", "dpkg-source": "dpkg-dev"}
    missing = sorted({package for program, package in packages.items() if not shutil.which(program)})
    if missing and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-qq"])
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing])
    missing = sorted({package for program, package in packages.items() if not shutil.which(program)})
    if missing:
        raise Unavailable("please install: " + " ".join(missing))
    version = subprocess.run(["redis-server", "--version"], capture_output=True, text=True).stdout
    if f"v={VERSION} " not in version:
        raise Unavailable(f"the baseline is for redis-server {VERSION}, installed is: {version.strip()}")


def fetch(home, tree):
    apt, unpacked = home / "apt", home / "unpacked"
    for directory in ("sources.d", "lists/partial", "cache/archives/partial"):
        (apt / directory).mkdir(parents=True, exist_ok=True)
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir()
    write_source_entries(apt / "sources.d")
    config = apt / "apt.conf"
    config.write_text(
        f'Dir::Etc::sourcelist "/dev/null";\nDir::Etc::sourceparts "{apt}/sources.d";\n'
        f'Dir::State::lists "{apt}/lists";\nDir::Cache "{apt}/cache";\nAPT::Sandbox::User "root";\n'
    )
    env = {**os.environ, "APT_CONFIG": str(config)}
    # A third party's entry without sources makes the update complain; only the package below matters.
    with open(home / "fetch.log", "w") as log:
        subprocess.run(["apt-get", "update"], env=env, stdout=log, stderr=log)
        subprocess.run(["apt-get", "source", "redis"], env=env, cwd=unpacked, stdout=log, stderr=log)
    found = unpacked / f"redis-{VERSION}"
    if not (found / "runtest").exists():
        raise Unavailable(f"apt-get source redis did not give redis {VERSION}; see {home}/fetch.log")
    shutil.rmtree(tree, ignore_errors=True)
    found.rename(tree)
    shutil.rmtree(unpacked)


def write_source_entries(directory):
    """The machine's entries for its own release, both formats, with deb turned into deb-src."""
    release = Path("/etc/os-release").read_text()
    codename = re.search(r"^VERSION_CODENAME=(\S+)", release, re.M).group(1)
    etc = Path("/etc/apt")
    stanzas, lines = [], []
    for file in sorted(etc.glob("sources.list.d/*.sources")):
        for stanza in re.split(r"\n\s*\n", file.read_text()):
            if re.search(rf"^Suites:.*\b{codename}", stanza, re.M) and not re.search(r"^Enabled:\s*no", stanza, re.M):
                stanzas.append(re.sub(r"^Types:.*$", "Types: deb-src", stanza, flags=re.M).strip())
    for file in [etc / "sources.list", *sorted(etc.glob("sources.list.d/*.list"))]:
        for line in file.read_text().splitlines() if file.exists() else []:
            if re.match(rf"deb\s.*\s{codename}", line):
                lines.append(re.sub(r"^deb\s", "deb-src ", line))
    (directory / "suite.sources").write_text("\n\n".join(stanzas) + "\n")
    (directory / "suite.list").write_text("\n".join(lines) + "\n")
