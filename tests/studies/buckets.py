"""A bucket of a service that speaks S3, on this machine, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from pyarrow import fs

BUCKET = "bucket"


@contextlib.contextmanager
def bucket() -> Iterator[dict[str, str]]:
    """What the environment of those who use it must say, for as long as the block lasts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    keys = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env={**os.environ, **keys},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        made = fs.S3FileSystem(
            access_key="key", secret_key="secret", region="us-east-1", endpoint_override=endpoint,
            allow_bucket_creation=True,
        )  # fmt: skip
        made.create_dir(BUCKET)
        yield {**keys, "AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "us-east-1"}
    finally:
        server.kill()
        server.wait()
