"""A real browser for tests: headless Chromium driven by the DevTools protocol over a pipe.

https://chromedevtools.github.io/devtools-protocol: JSON messages that a zero byte ends, to the
browser's file descriptor 3 and from its 4. Standard library only; ``python -m pytest -rs`` says
which tests were skipped because no Chromium was found.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = None if os.name == "nt" else next(filter(None, map(shutil.which, NAMES)), None)
SECONDS = 60.0  # for any one thing; a busy machine is slow
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--mute-audio",
    "--disable-features=Translate,OptimizationHints,MediaRouter",
    "--remote-debugging-pipe",
)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")


@pytest.fixture(scope="module", name="browser")
def running_browser() -> Iterator["Browser"]:
    """A browser for the tests of a module that imports this; skips them where there is none."""
    if CHROMIUM is None:
        pytest.skip("no chromium here")
    with Browser() as running:
        yield running


class Browser:
    """A running Chromium with a profile of its own, gone at the end."""

    def __init__(self, *flags: str) -> None:
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        its_input, self.to = os.pipe()
        self.back, its_output = os.pipe()

        def hand_over() -> None:  # by way of numbers above 4: a pipe may itself be 3 or 4
            import fcntl  # not on Windows

            pipes = [fcntl.fcntl(fd, fcntl.F_DUPFD, 5) for fd in (its_input, its_output)]
            for fd, number in zip(pipes, (3, 4), strict=True):
                os.dup2(fd, number)

        command = [CHROMIUM, *FLAGS, f"--user-data-dir={self.profile.name}", *flags, "about:blank"]
        self.process = subprocess.Popen(
            command,
            preexec_fn=hand_over,
            close_fds=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(its_input)
        os.close(its_output)
        self.events: list[dict[str, Any]] = []  # not yet looked at
        self._read, self._last = b"", 0

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.call("Browser.close")
            self.process.wait(10)
        except Exception:
            self.process.kill()
            self.process.wait()
        os.close(self.to)
        os.close(self.back)
        self.profile.cleanup()

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """A command's result. Raises RuntimeError with the browser's message, or TimeoutError."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to, data) :]
        end = time.monotonic() + SECONDS
        while True:
            answer = self._receive(end)
            if answer is None:
                raise TimeoutError(f"{method}: no answer in {SECONDS:g} s")
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def _receive(self, end: float) -> dict[str, Any] | None:
        """The next message, or None when there is none until ``end``."""
        while b"\0" not in self._read:
            if not select.select([self.back], [], [], max(0, end - time.monotonic()))[0]:
                return None
            data = os.read(self.back, 1 << 20)
            if not data:
                raise RuntimeError("the browser left")
            self._read += data
        line, _, self._read = self._read.partition(b"\0")
        return json.loads(line)

    def open(
        self,
        address: str | Path,
        width: int = 1280,
        height: int = 800,
        dark: bool = False,
        reduced_motion: bool = False,
        offline: bool = False,
    ) -> "Tab":
        """A new tab with a file or an address in it, once its load event has fired."""
        return Tab(self, address, width, height, dark, reduced_motion, offline)


class Tab:
    """A page: what it asked for (``requests``), and what went wrong in it (``errors``)."""

    def __init__(
        self,
        browser: Browser,
        address: str | Path,
        width: int,
        height: int,
        dark: bool,
        reduced_motion: bool,
        offline: bool,
    ) -> None:
        self.browser = browser
        self.requests: list[str] = []
        self.errors: list[str] = []
        # a context of its own, like a private window: no state is shared between tests
        self.context = browser.call("Target.createBrowserContext")["browserContextId"]
        target = browser.call(
            "Target.createTarget", url="about:blank", browserContextId=self.context
        )
        self.session = browser.call(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)
        features = {
            "prefers-color-scheme": "dark" if dark else "light",
            "prefers-reduced-motion": "reduce" if reduced_motion else "no-preference",
        }
        media = [{"name": name, "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=media)
        if offline:
            none = {"latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
            self.call("Network.emulateNetworkConditions", offline=True, **none)
        url = address.resolve().as_uri() if isinstance(address, Path) else address
        self.call("Page.navigate", url=url)
        self.wait(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")
        self.requests = [sent for sent in self.requests if sent != url]

    def __enter__(self) -> "Tab":
        return self

    def __exit__(self, *_: object) -> None:
        self.browser.call("Target.disposeBrowserContext", browserContextId=self.context)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command to this tab; notes what the browser told meanwhile."""
        result = self.browser.call(method, self.session, **params)
        ours = [event for event in self.browser.events if event.get("sessionId") == self.session]
        self.browser.events.clear()
        for event in ours:
            told = event["params"]
            if event["method"] == "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])
            elif event["method"] == "Runtime.exceptionThrown":
                details = told["exceptionDetails"]
                thrown = details.get("exception", {}).get("description")
                self.errors.append(thrown or details["text"])
            elif event["method"] == "Log.entryAdded" and told["entry"]["level"] == "error":
                self.errors.append(told["entry"]["text"])
            elif event["method"] == "Runtime.consoleAPICalled" and told["type"] == "error":
                self.errors.append(" ".join(str(arg.get("value")) for arg in told["args"]))
        return result

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression (a promise's, once it is kept), as JSON has it.

        Raises RuntimeError with what it threw.
        """
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description") or details["text"])
        return found["result"].get("value")

    def wait(self, condition: str, seconds: float = SECONDS) -> None:
        """Until a JavaScript expression is true. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while True:
            try:
                if self.evaluate(f"Boolean({condition})"):
                    return
            except RuntimeError as error:  # while a page is being replaced
                if time.monotonic() > end:
                    raise TimeoutError(f"{condition}: {error}") from None
            if time.monotonic() > end:
                raise TimeoutError(f"still not so: {condition}")
            time.sleep(0.02)

    def type(self, text: str) -> None:
        """Text into what has the focus, as an input method or a paste would."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, modifiers: int = 0) -> None:
        """A key by its DOM name (Tab, Enter, ArrowDown, a); modifiers: 1 alt, 2 ctrl, 8 shift."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "End": 35, "Home": 36}
        codes |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        codes |= {"Backspace": 8, "Delete": 46, "PageUp": 33, "PageDown": 34}
        what = {"key": key, "modifiers": modifiers, "code": "Space" if key == " " else key}
        what["windowsVirtualKeyCode"] = codes.get(key, ord(key[0].upper()))
        typed = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        down = {"type": "keyDown", "text": typed} if typed else {"type": "rawKeyDown"}
        self.call("Input.dispatchKeyEvent", **what, **down)
        self.call("Input.dispatchKeyEvent", **what, type="keyUp")

    def click(self, selector: str) -> None:
        """The middle of the first element that a CSS selector finds, scrolled into sight."""
        element = f"document.querySelector({json.dumps(selector)})"
        x, y = self.evaluate(
            f"(e => {{ e.scrollIntoView({{block: 'center', behavior: 'instant'}}); "
            "const r = e.getBoundingClientRect(); "
            f"return [r.x + r.width / 2, r.y + r.height / 2]; }})({element})"
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def screenshot(self, path: str | Path, whole: bool = True) -> None:
        """A PNG of the whole page, or of what is in sight."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        Path(path).write_bytes(base64.b64decode(data))
