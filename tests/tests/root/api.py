"""Holds the API on a socket against its own document.

    api.py SOCKET DIRECTORY

The document is OpenAPI 3.1, and schemathesis finds nothing that is not as it says. What
schemathesis writes goes into DIRECTORY. Prints as JSON how often each operation was answered with
which status, and each path to a method that it does not take.
"""

import collections
import contextlib
import json
import os
import pathlib
import re
import socket
import socketserver
import subprocess
import sys
import threading
import urllib.error
import urllib.request

from openapi_spec_validator import OpenAPIV31SpecValidator, validate

HERE = pathlib.Path(__file__).parent
# So that the fuzzing stays short; what is derived from each schema is not limited.
EXAMPLES = "8"
# For one answer, on a machine that does much else.
PATIENCE_S = "60"
REQUEST = re.compile(rb"([A-Z]+) (/[^ ?]*)[^ ]* HTTP/1\.1\r\n")
ANSWER = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")


class Bridge(socketserver.BaseRequestHandler):
    """From TCP, which is all that schemathesis speaks, to the Unix socket."""

    def handle(self):
        self.asked = None
        self.daemon = socket.socket(socket.AF_UNIX)
        self.daemon.connect(self.server.flowd)
        answers = threading.Thread(target=self.answers)
        answers.start()
        with contextlib.suppress(OSError):
            while sent := self.request.recv(65536):
                if request := REQUEST.match(sent):
                    self.asked = tuple(part.decode() for part in request.groups())
                # What comes behind flowd's end of a connection is of no use, and no reason to cut
                # off who still reads the answer.
                with contextlib.suppress(OSError):
                    self.daemon.sendall(sent)
        # Its end is the end of the other direction too; to flowd it is a client that has gone.
        self.daemon.shutdown(socket.SHUT_RDWR)
        answers.join()
        self.daemon.close()

    def answers(self):
        with contextlib.suppress(OSError):
            while got := self.daemon.recv(65536):
                if answer := ANSWER.match(got):
                    status = answer.group(1).decode()
                    self.server.answered[(*self.asked, status)] += 1
                    if self.asked == ("GET", "/v1/watch") and status == "200":
                        got = self.ended(got)
                self.request.sendall(got)
        # Who is told nothing would wait for an answer that nobody gives.
        with contextlib.suppress(OSError):
            self.request.shutdown(socket.SHUT_WR)

    def ended(self, head):
        """The head of a stream without an end, and an end."""
        while b"\r\n\r\n" not in head:
            head += self.daemon.recv(65536)
        self.daemon.shutdown(socket.SHUT_RDWR)
        return head.split(b"\r\n\r\n", 1)[0] + b"\r\nConnection: close\r\n\r\n0\r\n\r\n"


class Bridges(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128
    answered = collections.Counter()


def operations(document):
    """Method and path of each."""
    for path, operations in document["paths"].items():
        for method in operations:
            yield method.upper(), path


def refused(base, method, path):
    """The refusal of a request."""
    target = re.sub(r"\{[^}]*\}", "x", path)
    request = urllib.request.Request(base + target, method=method, data=b"")
    try:
        with urllib.request.urlopen(request) as answer:
            sys.exit(f"{method} {target}: {answer.status}")
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.headers["Allow"], json.load(refusal)["detail"]


def refuses_what_it_does_not_know(base, document):
    """Parameters and methods that are not in the document."""
    for method, path in operations(document):
        status, _, detail = refused(base, method, path + "?unheard-of=1")
        if status != 400 or "unknown parameter `unheard-of`" not in detail:
            sys.exit(f"{method} {path}: {status} {detail}")
    for path, methods in document["paths"].items():
        status, allow, detail = refused(base, "DELETE", path)
        if status != 405 or not all(method.upper() in allow.split(",") for method in methods):
            sys.exit(f"DELETE {path}: {status} {allow} {detail}")


def statuses(document, answered):
    """How often each operation was answered with which status, and each path to other methods."""
    found = {path: collections.Counter() for path in document["paths"]}
    found |= {f"{method} {path}": collections.Counter() for method, path in operations(document)}
    paths = {path: re.compile(re.sub(r"\{[^}]*\}", "[^/]+", path)) for path in document["paths"]}
    for (method, target, status), times in answered.items():
        path = target if target in paths else None
        for template, pattern in paths.items():
            path = path or (template if pattern.fullmatch(target) else None)
        if path:
            counts = found.get(f"{method} {path}", found[path])
            counts[status] += times
    return found


def main(flowd, directory):
    with Bridges(("127.0.0.1", 0), Bridge) as bridges:
        bridges.flowd = flowd
        threading.Thread(target=bridges.serve_forever, daemon=True).start()
        base = "http://127.0.0.1:%d" % bridges.server_address[1]
        address = base + "/v1/openapi.json"
        with urllib.request.urlopen(address) as answer:
            document = json.load(answer)
        validate(document, cls=OpenAPIV31SpecValidator)
        refuses_what_it_does_not_know(base, document)
        command = [
            pathlib.Path(sys.executable).parent / "schemathesis",
            "--config-file", HERE / "schemathesis.toml", "--no-color",
            "run", address, "--url", base,
            "--generation-deterministic", "--max-examples", EXAMPLES,
            "--request-timeout", PATIENCE_S,
        ]
        hooks = {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(HERE)}
        hooks["PYTHONDONTWRITEBYTECODE"] = "1"
        run = subprocess.run(
            command, cwd=directory, env=os.environ | hooks, capture_output=True, text=True
        )
        bridges.shutdown()
    if run.returncode != 0:
        sys.exit(run.stdout + run.stderr)
    print(json.dumps(statuses(document, bridges.answered)))


if __name__ == "__main__":
    main(*sys.argv[1:])
