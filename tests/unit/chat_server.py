"""A server on this machine that speaks as much of OpenAI's protocol as the tests need."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Any]  # status and body; bytes go out as they are, with status -1 as all that is sent


@contextlib.contextmanager
def chat_server(reply: Callable[[dict[str, Any]], Reply]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Address up to `/v1`, and the requests so far: body, path and headers."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append({"body": body, "path": self.path, "headers": dict(self.headers)})
            status, found = reply(body)
            if status == 0:
                time.sleep(found)
                return
            if status == -1:
                self.wfile.write(found)
                return
            data = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        server.server_close()


def said(text: str | None, **more: Any) -> Reply:
    message = {"role": "assistant", "content": text, **more}
    usage = {"completion_tokens": 7}
    return 200, {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
