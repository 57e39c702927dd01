"""Holds the API on a socket against its own document.

    api.py SOCKET DIRECTORY

The document is OpenAPI 3.1, and schemathesis finds nothing that is not as it says. What schemathesis
writes goes into DIRECTORY. Prints how often each operation was answered with which status, as JSON.
"""

import collections
import json
import os
import pathlib
import re
import socket
import socketserver
import subprocess
import sys
import threading
import urllib.request

from openapi_spec_validator import OpenAPIV31SpecValidator, validate

HERE = pathlib.Path(__file__).parent
# So that the fuzzing stays short; what is derived from each schema is not limited.
EXAMPLES = "8"
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
        try:
            while sent := self.request.recv(65536):
                if request := REQUEST.match(sent):
                    self.asked = tuple(part.decode() for part in request.groups())
                self.daemon.sendall(sent)
        except OSError:
            pass
        # Its end is the end of the other direction too; to flowd it is a client that has gone.
        self.daemon.shutdown(socket.SHUT_RDWR)
        answers.join()
        self.daemon.close()

    def answers(self):
        try:
            while got := self.daemon.recv(65536):
                if answer := ANSWER.match(got):
                    status = answer.group(1).decode()
                    self.server.answered[(*self.asked, status)] += 1
                    if self.asked == ("GET", "/v1/watch") and status == "200":
                        got = self.ended(got)
                self.request.sendall(got)
        except OSError:
            pass

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


def statuses(document, answered):
    """How often each operation of the document was answered with which status."""
    found = {}
    for template, operations in document["paths"].items():
        path = re.compile(re.sub(r"\{[^}]*\}", "[^/]+", template))
        for method in map(str.upper, operations):
            counts = found[f"{method} {template}"] = collections.Counter()
            for (asked, target, status), times in answered.items():
                if asked == method and path.fullmatch(target):
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
        command = [
            pathlib.Path(sys.executable).parent / "schemathesis",
            "--config-file", HERE / "schemathesis.toml", "--no-color",
            "run", address, "--url", base,
            "--generation-deterministic", "--max-examples", EXAMPLES,
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
