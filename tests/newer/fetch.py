"""Gets servers newer than the one that is installed: redis-server and valkey-server of Debian's next release.

They are unpacked under `target/newer` with the libraries they need and installed nowhere: nothing of the system's configuration changes. From where
this machine gets its own release, the next one is asked for, too, so no address is written here.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

NEXT = "trixie"
SERVERS = ("redis-server", "valkey-server")
PACKAGES = (
    *("redis-tools", "valkey-tools"),
    *("libc6", "libstdc++6", "libgcc-s1", "libssl3t64", "libsystemd0", "libjemalloc2", "liblzf1", "libatomic1", "libcap2"),
    *("liblua5.1-0", "lua-bitop", "lua-cjson", "libzstd1", "zlib1g", "libgcrypt20", "liblzma5", "liblz4-1", "libhiredis1.1.0"),
)


class Unavailable(Exception):
    """They cannot be had on this machine."""


def servers(target):
    """For each server a directory to put first in PATH, where it is called redis-server."""
    home = target.resolve() / "newer"
    if not (home / "done").exists():
        fetch(home)
        (home / "done").touch()
    found = []
    for server in SERVERS:
        directory = home / "bin" / server
        version = subprocess.run([directory / "redis-server", "--version"], capture_output=True, text=True)
        if version.returncode != 0:
            raise Unavailable(f"{server} does not run: {version.stderr.strip()}")
        found.append((directory, version.stdout.split(" sha=")[0]))
    return found


def fetch(home):
    shutil.rmtree(home, ignore_errors=True)
    root = home / "root"
    for directory in ("sources.d", "lists/partial", "cache/archives/partial", "debs"):
        (home / "apt" / directory).mkdir(parents=True)
    write_source_entry(home / "apt/sources.d/next.sources")
    (home / "apt/status").touch()
    config = home / "apt/apt.conf"
    config.write_text(
        f'Dir::Etc::sourcelist "/dev/null";\nDir::Etc::sourceparts "{home}/apt/sources.d";\n'
        f'Dir::State::lists "{home}/apt/lists";\nDir::State::status "{home}/apt/status";\nDir::Cache "{home}/apt/cache";\n'
        'APT::Sandbox::User "root";\n'
    )
    env = {**os.environ, "APT_CONFIG": str(config)}
    with open(home / "fetch.log", "w") as log:
        quiet = {"env": env, "cwd": home / "apt/debs", "stdout": log, "stderr": log, "timeout": 300}
        try:
            subprocess.run(["apt-get", "update"], **quiet)
            # Each alone: one that has another name there does not keep the others from coming. What is lacking, a server says.
            for package in (*SERVERS, *PACKAGES):
                subprocess.run(["apt-get", "download", package], **quiet)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"it takes too long; see {home}/fetch.log")
    for package in sorted((home / "apt/debs").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    loader = next(iter(sorted(root.glob("usr/lib*/**/ld-linux*.so.*"))), None)
    if loader is None:
        raise Unavailable(f"the next release's packages did not come; see {home}/fetch.log")
    for server in SERVERS:
        directory = home / "bin" / server
        directory.mkdir(parents=True)
        script = directory / "redis-server"
        script.write_text(
            f'#!/bin/sh\nexec "{loader}" --library-path "{loader.parent}:{root}/usr/lib/{loader.parent.name}" "{root}/usr/bin/{server}" "$@"\n'
        )
        script.chmod(0o755)


def write_source_entry(path):
    """The machine's own entry for its release, with the next one's name."""
    release = Path("/etc/os-release").read_text()
    codename = re.search(r"^VERSION_CODENAME=(\S+)", release, re.M).group(1)
    etc = Path("/etc/apt")
    for file in sorted(etc.glob("sources.list.d/*.sources")):
        for stanza in re.split(r"\n\s*\n", file.read_text()):
            if re.search(rf"^Suites:\s*{codename}\b", stanza, re.M):
                stanza = re.sub(r"^Suites:.*$", f"Suites: {NEXT}", stanza, flags=re.M)
                path.write_text(re.sub(r"^Types:.*$", "Types: deb", stanza, flags=re.M).strip() + "\n")
                return
    for file in [etc / "sources.list", *sorted(etc.glob("sources.list.d/*.list"))]:
        for line in file.read_text().splitlines() if file.exists() else []:
            if re.match(rf"deb\s.*\s{codename}\s", line):
                path.with_suffix(".list").write_text(line.replace(f" {codename} ", f" {NEXT} ") + "\n")
                return
    raise Unavailable(f"no entry of {codename}'s own in /etc/apt")


if __name__ == "__main__":
    try:
        for directory, version in servers(Path(sys.argv[1])):
            print(f"{directory}\t{version}")
    except Unavailable as why:
        sys.exit(f"{why}")
