"""How large the report of a long run is, how long Chromium takes to show it, and whether anything in it runs.

The run is made up: steps, evaluated items and 100 measurements of ten samples, in the shapes that `tunesmith run`
writes. Chromium opens each page without a window; "shown" is the time from the navigation to the load event, the first
layout and a picture of the top included. Then the same pages with hostile text in every name and every text: whatever
of it runs opens a dialog (which ends this program) or sets a title, and what it tries to load is told on the console.

    python benchmarks/report.py [--steps N] [--items N] [--chromium PATH]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "report"))
from fake_run import fake_run

from tunesmith.evaluate.diagnose import Logged, diagnose
from tunesmith.report.compare import write_comparison_page
from tunesmith.report.diagnosis import write_diagnosis
from tunesmith.report.page import write_report

HOSTILE = (
    "<script>document.title='ran'</script></style><img src=x onerror=alert(1)><svg/onload=alert(2)>"
    "\"' onmouseover=alert(3) x=' javascript:alert(4) {{ 7 * 7 }}"
)
REPEATS = 5


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--steps", type=int, default=10_000)
    options.add_argument("--items", type=int, default=5_000)
    options.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    given = options.parse_args()
    if not given.chromium:
        raise SystemExit("no Chromium was found; name it with --chromium")
    with tempfile.TemporaryDirectory() as folder:
        control = Path(folder) / "control.html"  # what would be told if something did run
        control.write_text("<script>document.title='ran'; missing()</script><img src=http://none.invalid/x>")
        assert len(opened(given.chromium, control).told) == 3
        pages = [*written(Path(folder) / "plain", given, ""), *written(Path(folder) / "hostile", given, HOSTILE)]
        for path, seconds in pages:
            found = [opened(given.chromium, path) for _ in range(REPEATS)]
            times = [each.seconds for each in found]
            told = "; ".join(sorted({line for each in found for line in each.told})) or "nothing ran or failed"
            print(
                f"{path.relative_to(folder)!s:24} {path.stat().st_size / 1e6:5.2f} MB, written in {seconds:4.1f} s, "
                f"shown in {median(times):.2f} s (up to {max(times):.2f}); {told}",
                flush=True,
            )


def written(folder: Path, given: argparse.Namespace, text: str) -> Iterator[tuple[Path, float]]:
    """The three kinds of pages, each with the seconds that writing it took."""
    runs = [fake_run(folder / name, steps=given.steps, items=given.items, samples=10, text=text) for name in "ab"]
    for run in runs:
        measurements = sum("samples" in line for line in (run / "metrics.jsonl").open())
        assert measurements >= 100 or given.steps < 100
    started = time.perf_counter()
    yield write_report(runs[0]), time.perf_counter() - started
    started = time.perf_counter()
    yield write_comparison_page(runs, folder / "comparison.html", f"runs {text}"), time.perf_counter() - started
    asked = [f"Sort the words {word} {text}" for word in ("plum", "ant", "kettle", "river", "lamp", "rug", "hen")]
    log = [Logged(f"log:{place} {text}", words, text, text, True) for place, words in enumerate(asked)]
    started = time.perf_counter()
    found = diagnose(log, [f"Who owns the {thing}?" for thing in ("bakery", "mill", "ferry", "barn")])
    yield (
        write_diagnosis(found, folder / "diagnosis.html", f"run {text}", f"log {text}", text),
        time.perf_counter() - started,
    )


@dataclass(frozen=True, slots=True)
class Opened:
    """seconds: until the page was shown. told: what the console said, dialogs, and a title that is not the page's."""

    seconds: float
    told: list[str] = field(default_factory=list)


def opened(chromium: str, page: Path) -> Opened:
    """Open a page in a browser of its own."""
    with browser(chromium) as devtools:
        target = devtools.ask("Target.createTarget", url="about:blank")["targetId"]
        devtools.session = devtools.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            devtools.ask(f"{domain}.enable")
        started = time.perf_counter()
        devtools.ask("Page.navigate", url=page.resolve().as_uri())
        devtools.wait("Page.loadEventFired")
        devtools.ask("Page.captureScreenshot")
        seconds = time.perf_counter() - started
        open_all = "document.querySelectorAll('details').forEach(each => each.open = true); document.title"
        title = devtools.ask("Runtime.evaluate", expression=open_all)["result"]["value"]
        devtools.ask("Page.captureScreenshot", captureBeyondViewport=False)
        told = [*devtools.told, *([f"the title is {title}"] if title == "ran" else [])]
        return Opened(seconds, told)


class DevTools:
    """The browser's debugging protocol over a pair of pipes: JSON messages, each ended by a zero byte."""

    def __init__(self, write: int, read: int) -> None:
        self._out, self._in = os.fdopen(write, "wb", 0), os.fdopen(read, "rb")
        self._number, self._buffer, self._seen = 0, b"", list[str]()
        self.session, self.told = "", list[str]()

    def ask(self, method: str, **params: Any) -> Mapping[str, Any]:
        """The result of a command; raises RuntimeError with what the browser says is wrong with it."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        session = {"sessionId": self.session} if self.session else {}
        self._out.write(json.dumps(message | session).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: Mapping[str, Any] = answer["result"]
        return result

    def wait(self, event: str) -> None:
        while event not in self._seen:
            self._next()

    def _next(self) -> Mapping[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._in.fileno(), 1 << 20)
            if not part:
                raise RuntimeError("the browser ended")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        found: Mapping[str, Any] = json.loads(line)
        self._note(str(found.get("method", "")), found.get("params", {}))
        return found

    def _note(self, method: str, params: Mapping[str, Any]) -> None:
        self._seen.append(method)
        if method == "Page.javascriptDialogOpening":
            raise SystemExit(f"the page opened a dialog: {params['message']}")  # it would wait for an answer for ever
        if method == "Log.entryAdded":
            self.told.append(f"console: {params['entry']['level']} {params['entry']['text']}")
        if method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
            self.told.append(f"{method}: {str(params)[:200]}")


@contextmanager
def browser(chromium: str) -> Iterator[DevTools]:
    """A browser without a window, with a profile of its own."""
    to_browser, from_browser = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        command += [f"--user-data-dir={profile}", "--no-first-run", "--window-size=1280,900", "about:blank"]
        ends = to_browser[0], from_browser[1]
        files = f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}'  # the browser reads its file 3 and writes its file 4
        process = subprocess.Popen(["bash", "-c", files, "bash", *command], pass_fds=ends, stderr=subprocess.DEVNULL)
        os.close(to_browser[0])
        os.close(from_browser[1])
        try:
            yield DevTools(to_browser[1], from_browser[0])
        finally:
            process.terminate()
            process.wait(20)


if __name__ == "__main__":
    main()
