"""A real nginx on loopback that serves a folder under many hosts and many addresses, and logs when each answer left."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_port

_CONFIGURATION = """
worker_processes 1;
worker_rlimit_nofile 30000;
daemon off;
error_log {home}/error.log warn;
pid {home}/nginx.pid;
events {{ worker_connections 8192; }}
http {{
  log_format times '$msec $server_addr $status $request_uri';
  access_log {home}/access.log times buffer=64k flush=1s;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  types {{ image/jpeg jpg; image/png png; image/webp webp; text/plain txt; }}
  sendfile on; tcp_nopush on; keepalive_timeout 5; open_file_cache max=4000;
  server {{
    listen 0.0.0.0:{port} backlog=8192;
    root {files};
    location = /robots.txt {{ return 200 "User-agent: *\\nDisallow: /private/\\n"; }}
    location = /.well-known/tdmrep.json {{ return 404; }}
    location / {{ rewrite ^/u\\d+/(.*)$ /$1 break; }}
  }}
}}
"""


@dataclass(frozen=True)
class Nginx:
    """A running server: every address of 127.0.0.0/8 on `port`; `/u<number>/<file>` is `<file>` under a name of its own."""

    port: int
    log: Path

    def url(self, number: int, file: str, hosts: int) -> str:
        """The address of URL number `number`, on one of `hosts` loopback addresses."""
        host = number % hosts
        return f"http://127.{1 + host // 50_000}.{host // 250 % 200}.{1 + host % 250}:{self.port}/u{number}/{file}"

    def finished(self) -> list[float]:
        """Seconds at which answers with an image left, in order, since the log was last cleared."""
        time.sleep(1.2)  # the log's buffer is flushed each second
        lines = [line.split(" ", 3) for line in self.log.read_text().splitlines()]
        return sorted(float(seconds) for seconds, _, status, path in lines if status == "200" and path.startswith("/u"))

    def clear(self) -> None:
        """Begins a new log."""
        time.sleep(1.2)
        with self.log.open("r+") as log:
            log.truncate(0)


@contextmanager
def serve(files: Path) -> Iterator[Nginx]:
    """Runs nginx over `files` for the length of the block. Raises SystemExit when nginx is not installed."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise SystemExit("this benchmark needs nginx; on Debian:  apt-get install nginx-light")
    with tempfile.TemporaryDirectory(prefix="curate-nginx-") as home:
        port = free_port()
        Path(home).chmod(0o755)
        configuration = Path(home) / "nginx.conf"
        configuration.write_text(_CONFIGURATION.format(home=home, port=port, files=files))
        process = subprocess.Popen([program, "-c", str(configuration), "-e", f"{home}/error.log"])
        try:
            _wait(port, process)
            yield Nginx(port, Path(home) / "access.log")
        finally:
            process.terminate()
            process.wait()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            raise SystemExit(f"nginx ended with code {process.returncode}")
        time.sleep(0.1)
    raise SystemExit("nginx did not start")
