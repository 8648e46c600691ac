"""A throw-away redis-server and, unless asked directly, the proxy in front of it; both gone when the block ends."""

import ctypes
import shutil
import signal
import socket
import subprocess
import tempfile
import time

START_TIMEOUT_S = 15
PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def die_with_parent():
    """Called in the child: the kernel kills it should this harness be killed without a chance to clean up."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class StartFailure(Exception):
    """A server did not answer PING in time, or ended."""


class Servers:
    """`with Servers(...) as servers:` gives the port to talk to; logs are written beside `log_stem`."""

    def __init__(self, log_stem, scratch, proxy=None, tls_directory=None):
        self.log_stem, self.scratch, self.proxy_path, self.tls_directory = log_stem, scratch, proxy, tls_directory
        self.processes = {}

    def __enter__(self):
        self.directory = tempfile.mkdtemp(dir=self.scratch)
        try:
            redis_port = free_port()
            self.start("redis", redis_port, [
                "redis-server", "--port", str(redis_port), "--enable-debug-command", "yes", "--save", "",
                "--dir", self.directory,
            ])
            self.port = redis_port
            if self.proxy_path:
                self.port = free_port()
                self.start("proxy", self.port, [
                    str(self.proxy_path), "--listen", f"127.0.0.1:{self.port}",
                    "--upstream", f"redis://127.0.0.1:{redis_port}",
                    # One worker cannot pass unit/pause: a pause begun inside EXEC is not noted, and holds up its lane.
                    "--workers", "2", "--config", self.config(),
                ])
        except BaseException:
            self.__exit__()
            raise
        return self

    def config(self):
        """The defaults; and with a port for TLS, if there is a directory with what is shown there."""
        text = ""
        if self.tls_directory:
            self.tls_port = free_port()
            text += (
                f'[tls]\nlisten = "127.0.0.1:{self.tls_port}"\ncertificate_file = "{self.tls_directory}/shown.pem"\n'
                f'key_file = "{self.tls_directory}/shown.key"\nreload_check_ms = 100\n'
            )
        path = f"{self.directory}/proxy.toml"
        with open(path, "w") as config:
            config.write(text)
        return path

    def __exit__(self, *_):
        for process in reversed(self.processes.values()):
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self, name, port, command):
        with open(f"{self.log_stem}.{name}.log", "a") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent
            )
        self.processes[name] = process
        deadline = time.monotonic() + START_TIMEOUT_S
        while not answers_ping(port):
            if process.poll() is not None:
                raise StartFailure(f"{name} ended with status {process.returncode}; see {self.log_stem}.{name}.log")
            if time.monotonic() > deadline:
                raise StartFailure(f"{name} did not answer PING within {START_TIMEOUT_S} s")
            time.sleep(0.02)

    def deaths(self):
        """What ended by itself since the start, as a sentence each."""
        return [
            f"{name} ended with status {process.returncode}"
            for name, process in self.processes.items()
            if process.poll() is not None
        ]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers_ping(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
