"""redis-py by TLS: everything `redis_py.py` checks, and that it refuses a proxy that is not who it says.

Takes the port from `--tls-port` and the certificates, which it exchanges while the proxy runs, from `--tls-directory`.
"""

import argparse
import os
import ssl
import sys
import traceback

import redis

import certificates
import redis_py
from redis_py import eventually, raises, same


def served(port):
    """Who the proxy says it is at the moment, unverified."""
    return ssl.get_server_certificate(("127.0.0.1", port))


def shown(options, which):
    """Has the proxy show this one to who comes from now on."""
    certificates.show(options.tls_directory, which)
    with open(os.path.join(options.tls_directory, f"{which}.pem")) as file:
        wanted = "".join(file.read().split())
    eventually(lambda: "".join(served(options.tls_port).split()) == wanted, f"the proxy shows the {which} one")


def refused(make, words):
    raises(redis.ConnectionError, words, lambda: make().ping())


def check_tls_good(make, options):
    with make() as client:
        same(client.ping(), True)
        connection = client.connection_pool.get_connection()
        assert connection._sock.version() in ("TLSv1.2", "TLSv1.3"), connection._sock.version()


def check_tls_wrong_name(make, options):
    refused(lambda: make(host="127.0.0.1"), "CERTIFICATE_VERIFY_FAILED")
    shown(options, "other_name")
    refused(make, "Hostname mismatch")


def check_tls_expired(make, options):
    shown(options, "expired")
    refused(make, "certificate has expired")


def check_tls_stranger(make, options):
    shown(options, "stranger")
    refused(make, "CERTIFICATE_VERIFY_FAILED")


def check_tls_without(make, options):
    # The proxy's port for TLS has nothing to say to who does not speak it.
    plain = redis.Redis("localhost", options.tls_port, socket_timeout=5, socket_connect_timeout=5, retry=None)
    raises(redis.RedisError, "", plain.ping)


def check_tls_connected_before(make, options):
    with make(single_connection_client=True) as client:
        same(client.ping(), True)
        shown(options, "expired")
        same(client.ping(), True, "who is connected stays")
        shown(options, "good")
        same(make().ping(), True, "and a new one is let in again")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", help="not used: certificates are for localhost")
    parser.add_argument("--port", help="not used")
    parser.add_argument("--tls-port", type=int, required=True)
    parser.add_argument("--tls-directory", required=True)
    options = parser.parse_args()
    authority = os.path.join(options.tls_directory, "authority.pem")

    def make(**more):
        defaults = {
            "host": "localhost", "port": options.tls_port, "socket_timeout": redis_py.SOCKET_TIMEOUT_S, "ssl": True,
            "ssl_ca_certs": authority, "ssl_check_hostname": True,
        }
        return redis.Redis(**{**defaults, **more})

    checks = [(name[6:], lambda check=check: check(make)) for name, check in vars(redis_py).items() if name.startswith("check_")]
    checks += [
        (name[6:], lambda check=check: check(make, options)) for name, check in globals().items() if name.startswith("check_tls_")
    ]
    passed = failed = 0
    for name, check in checks:
        try:
            shown(options, "good")
            check()
            passed += 1
        except Exception:
            failed += 1
            print(f"FAIL redis-py {redis.__version__} by TLS: {name}\n{traceback.format_exc()}")
    print(f"redis-py {redis.__version__} by TLS: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
