"""An S3 server on the loopback interface for the tests of object stores: moto's, one request at a time, in its own process.

One at a time, because moto looks whether an object exists and stores it in two steps: of eight conditional PUTs at once, two got
through in 2 of 60 rounds. S3 and its peers do it in one step.
Two buckets misbehave: ``careless`` ignores conditions, ``private`` refuses everyone.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pafs

BUCKETS = ("shop", "careless")
_DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


@contextlib.contextmanager
def served(log: Path) -> Iterator[dict[str, str]]:
    """Yield the environment by which clients reach a server that runs until the block ends."""
    command = [sys.executable, __file__]
    with log.open("w") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as server:
        try:
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            assert port, log.read_text()
            endpoint = f"http://127.0.0.1:{port}"
            keys = {"access_key": "test", "secret_key": "test", "region": "us-east-1"}
            client = pafs.S3FileSystem(endpoint_override=endpoint, allow_bucket_creation=True, **keys)
            for bucket in BUCKETS:
                client.create_dir(bucket)
            yield {
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": endpoint,
            }
        finally:
            server.kill()


def _serve() -> None:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"  # keeps connections, as stores do

        def log_request(self, *_):
            pass

    moto, one_at_a_time = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def answer(environ, start_response):
        path = environ["PATH_INFO"]
        if path.startswith("/private"):
            start_response("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(_DENIED)))])
            return [_DENIED]
        if path.startswith("/careless"):
            environ.pop("HTTP_IF_NONE_MATCH", None)
        with one_at_a_time:
            return list(moto(environ, start_response))

    server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=Quiet)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    _serve()
