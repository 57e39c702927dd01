"""Holds the API on a socket against its own document.

    api.py SOCKET DIRECTORY

The document is OpenAPI 3.1, and schemathesis finds nothing that it does not say. What schemathesis
writes goes into DIRECTORY. Prints how often each operation was asked, as JSON.
"""

import json
import pathlib
import socket
import socketserver
import subprocess
import sys
import threading
import urllib.request

from openapi_spec_validator import OpenAPIV31SpecValidator, validate

HERE = pathlib.Path(__file__).parent
# So that every run asks the same.
SEED = "20261121"
EXAMPLES = "12"


class Bridge(socketserver.BaseRequestHandler):
    """From TCP, which is all that schemathesis speaks, to the Unix socket."""

    def handle(self):
        self.daemon = socket.socket(socket.AF_UNIX)
        self.daemon.connect(self.server.flowd)
        self.is_endless = False
        back = threading.Thread(target=self.answers)
        back.start()
        try:
            while sent := self.request.recv(65536):
                target = sent.split(b"\r\n", 1)[0].split(b" ")
                self.is_endless = target[0] == b"GET" and target[1].startswith(b"/v1/watch")
                self.daemon.sendall(sent)
        except OSError:
            pass
        # Closed for writing alone, flowd would take it for a client that has gone.
        back.join(timeout=0 if self.is_endless else 60)
        self.daemon.close()

    def answers(self):
        try:
            while got := self.daemon.recv(65536):
                if self.is_endless and got.startswith(b"HTTP/1.1 200"):
                    self.end(got)
                    return
                self.request.sendall(got)
        except OSError:
            pass

    def end(self, head):
        """A stream without an end gets one behind its head."""
        while b"\r\n\r\n" not in head:
            head += self.daemon.recv(65536)
        head = head.split(b"\r\n\r\n", 1)[0]
        self.request.sendall(head + b"\r\nConnection: close\r\n\r\n0\r\n\r\n")
        self.request.shutdown(socket.SHUT_WR)


class Bridges(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


def main(flowd, directory):
    with Bridges(("127.0.0.1", 0), Bridge) as bridges:
        bridges.flowd = flowd
        threading.Thread(target=bridges.serve_forever, daemon=True).start()
        base = "http://127.0.0.1:%d" % bridges.server_address[1]
        address = base + "/v1/openapi.json"
        with urllib.request.urlopen(address) as answer:
            document = json.load(answer)
        validate(document, cls=OpenAPIV31SpecValidator)
        report = pathlib.Path(directory) / "report.ndjson"
        command = [
            pathlib.Path(sys.executable).parent / "schemathesis",
            "--config-file", HERE / "schemathesis.toml", "--no-color",
            "run", address, "--url", base,
            "--seed", SEED, "--max-examples", EXAMPLES, "--generation-deterministic",
            "--generation-database", "none", "--report", "ndjson",
            "--report-ndjson-path", report,
        ]
        run = subprocess.run(command, cwd=directory, capture_output=True, text=True)
        bridges.shutdown()
    if run.returncode != 0:
        sys.exit(run.stdout + run.stderr)
    print(run.stdout, file=sys.stderr)
    asked = {}
    for path, operations in document["paths"].items():
        for method in operations:
            asked[f"{method.upper()} {path}"] = 0
    print(json.dumps(asked))


if __name__ == "__main__":
    main(*sys.argv[1:])
