"""Certificates for a server, made with openssl: a good one, one for another name, one that has expired, one of a stranger.

Each is a pair of files `<which>.pem` and `<which>.key`, signed by `authority.pem`; the stranger's by an authority nobody trusts.
"""

import os
import subprocess

NAMES = {"good": "localhost", "other_name": "elsewhere.example", "expired": "localhost", "stranger": "localhost"}


def make(directory):
    for authority in ("authority", "unknown"):
        openssl(directory, "req", "-x509", *new_key(authority), "-out", f"{authority}.pem", "-days", "30", "-subj", f"/CN={authority}")
    for which, name in NAMES.items():
        with open(os.path.join(directory, f"{which}.ext"), "w") as extensions:
            extensions.write(f"subjectAltName=DNS:{name}\n")
        openssl(directory, "req", *new_key(which), "-out", f"{which}.csr", "-subj", f"/CN={name}")
        authority = "unknown" if which == "stranger" else "authority"
        openssl(
            directory, "x509", "-req", "-in", f"{which}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key",
            "-CAcreateserial", "-days", "-1" if which == "expired" else "30", "-extfile", f"{which}.ext", "-out", f"{which}.pem",
        )
    show(directory, "good")


def show(directory, which):
    """Puts this one where the proxy reads it, each file at once: a certificate is never seen half."""
    for ending in ("key", "pem"):
        with open(os.path.join(directory, f"{which}.{ending}")) as source:
            text = source.read()
        path = os.path.join(directory, f"shown.{ending}")
        with open(f"{path}.new", "w") as target:
            target.write(text)
        os.replace(f"{path}.new", path)


def new_key(name):
    return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key"]


def openssl(directory, *words):
    done = subprocess.run(["openssl", *words], cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"openssl {words[0]}: {done.stderr.strip()}")
