"""Chromium without a window, driven by the DevTools protocol over a pair of pipes."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and logs nothing."""

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextlib.contextmanager
def serving(site: Path) -> Iterator[str]:
    """Serve the files of a directory, and return its address."""
    handler = functools.partial(Quiet, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Browser:
    """A tab. What a page reports as an error while it is open is added to `errors`."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader = reader
        self._writer = writer
        self._unread = b""
        self._count = 0
        self._session: dict[str, str] = {}
        self.errors: list[str] = []

    def open_tab(self) -> Self:
        """Open the tab, and have its errors reported."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def call(self, method: str, **params: object) -> dict[str, Any]:
        """Call a method of the protocol, and return its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params, **self._session}
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result

    def visit(self, url: str) -> None:
        """Open a page, and wait until it is loaded."""
        self.call("Page.navigate", url=url)
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; a promise is awaited."""
        done = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def resize(self, width: int, height: int) -> None:
        """Lay pages out for a screen of so many pixels; below 600 it is a phone's."""
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            read = os.read(self._reader, 1 << 20)
            assert read, "chromium has ended"
            self._unread += read
        message, _, self._unread = self._unread.partition(b"\0")
        event: dict[str, Any] = json.loads(message)
        match event:
            case {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": details}}:
                self.errors.append(str(details))
            case {"method": "Runtime.consoleAPICalled", "params": {"type": "error", "args": args}}:
                self.errors.append(str(args))
            case {"method": "Log.entryAdded", "params": {"entry": {"level": "error"} as entry}}:
                self.errors.append(f"{entry['text']} {entry.get('url', '')}")
            case {"method": "Network.requestWillBeSent", "params": {"request": {"url": str(url)}}}:
                if not url.startswith(("http://127.0.0.1:", "data:", "about:")):
                    self.errors.append(f"asks elsewhere: {url}")
            case _:
                pass
        return event


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Start Chromium with a new profile, and end it afterwards."""
    assert CHROMIUM
    to_read, its_output = os.pipe()
    its_input, to_write = os.pipe()
    options = "--headless --no-sandbox --disable-gpu --hide-scrollbars --remote-debugging-pipe"
    # Workers are not watched; what they ask for elsewhere is not found.
    rules = "--host-resolver-rules='MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'"
    command = f'exec "$0" {options} {rules} --user-data-dir="$1" 3<&{its_input} 4>&{its_output}'
    process = subprocess.Popen(
        ["bash", "-c", command, CHROMIUM, str(profile)],
        pass_fds=(its_input, its_output),
        stderr=subprocess.DEVNULL,
    )
    os.close(its_input)
    os.close(its_output)
    try:
        yield Browser(to_read, to_write).open_tab()
    finally:
        process.terminate()
        process.wait()
        os.close(to_read)
        os.close(to_write)
