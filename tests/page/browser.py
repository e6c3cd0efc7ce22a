"""A real Chromium that looks at a page, and remembers what it should not have said or asked for."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Error, Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}

# Whenever a network interface of this machine comes or goes, and other tests make some, Chromium
# drops its connections, those to loopback too.
_NOT_OURS = "ERR_NETWORK_CHANGED"

_NOTE = """
(says) => {
  const headline = document.getElementById("headline");
  window.noted = NaN;
  const watch = new MutationObserver(() => {
    if (!headline.innerText.includes(says)) return;
    window.noted = Date.now();
    watch.disconnect();
  });
  watch.observe(headline, { childList: true, subtree: true, characterData: true });
}
"""


class View:
    """One page, open. `complaints` and `elsewhere` are to stay empty.

    expects_silence: the server will be away, and that Chromium says so is no complaint.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        self._url = url
        self.expects_silence = False
        page.on("console", lambda told: self._hear(told.type, told.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda asked: self._watch(asked.url))

    def open(self) -> None:
        """Until it shows how things stand; tried again when the machine's network changes."""
        deadline = time.monotonic() + 120
        while True:
            try:
                self.page.goto(self._url, timeout=30_000)
                self.page.wait_for_selector("#headline .card", timeout=15_000)
                return
            except Error:
                if time.monotonic() > deadline:
                    raise

    def text(self, place: str = "#headline") -> str:
        """What is written there, in one line."""
        return " ".join(str(self.page.inner_text(place)).split())

    def until(self, *says: str, at: str = "#headline", seconds: float = 120.0) -> str:
        """Wait until all of it is written there; the whole text of the place."""
        deadline = time.monotonic() + seconds
        while not all(each in (text := self.text(at)) for each in says):
            assert time.monotonic() < deadline, f"{at} never says {says}: {text}"
            self.page.wait_for_timeout(20)
        return text

    def notes_when(self, says: str) -> Callable[[], float]:
        """From now on note when the headline first says so; what is returned tells, unix seconds.

        The page notes it itself: by this machine's clock, however late a test gets to look.
        """
        self.page.evaluate(_NOTE, says)
        return lambda: float(self.page.evaluate("window.noted")) / 1000

    def violations(self) -> list[str]:
        """What axe finds: rule, and the elements."""
        found: Any = Axe().run(self.page).response["violations"]
        return [f"{v['id']}: {[node['target'] for node in v['nodes']][:4]}" for v in found]

    def _hear(self, kind: str, text: str) -> None:
        refused = self.expects_silence and "Failed to load resource" in text
        if kind in ("error", "warning") and _NOT_OURS not in text and not refused:
            self.complaints.append(text)

    def _watch(self, url: str) -> None:
        here, there = urlsplit(self._url), urlsplit(url)
        if there.scheme in ("http", "https", "ws", "wss") and there.netloc != here.netloc:
            self.elsewhere.append(url)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Until the block ends. Inside, nothing else may use an event loop in this thread."""
    with sync_playwright() as playwright:
        # Its sandbox refuses to run as root, and needs what containers often do not have.
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def looking(
    browser: Browser, url: str, *, scheme: Any = "light", size: Any = DESK
) -> Iterator[View]:
    """The page at `url`, shown; afterwards it must have said nothing and asked nobody else."""
    context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
    try:
        view = View(context.new_page(), url)
        view.open()
        yield view
        assert view.complaints == []
        assert view.elsewhere == []
    finally:
        context.close()
