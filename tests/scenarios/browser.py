"""A headless Chromium, driven by Selenium, and the reason if there is none.

It is Debian's, with Debian's driver: Selenium is not to look for one elsewhere.  Every
call blocks, so the tests call it from a thread while the reactor serves.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selenium.webdriver.remote.webelement import WebElement

DRIVER, CHROMIUM = "/usr/bin/chromedriver", "/usr/bin/chromium"
#: Seconds anything may take on a busy machine.
PATIENCE = 60
#: Given the elements that have text of their own, gives for each the colours it is seen in.
_COLOURS = """
const seen = [];
const parse = c => { const m = c.match(/[\\d.]+/g).map(Number); return [m[0], m[1], m[2], m.length > 3 ? m[3] : 1]; };
const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
for (const element of document.querySelectorAll('body *')) {
  const own = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || !element.checkVisibility() || element.closest('svg')) continue;
  let ground = [0, 0, 0, 0];
  for (let e = element; e; e = e.parentElement) {
    const below = parse(getComputedStyle(e).backgroundColor);
    ground = ground[3] === 1 ? ground : over(ground, below).slice(0, 3).concat(ground[3] || below[3]);
    if (below[3] === 1) break;
  }
  const style = getComputedStyle(element);
  seen.push([element.textContent.trim().slice(0, 40), parse(style.color).slice(0, 3), ground.slice(0, 3)]);
}
return seen;
"""


def why_not() -> str | None:
    """Why there is no browser; None: there is one."""
    missing = [path for path in (DRIVER, CHROMIUM) if shutil.which(path) is None]
    return f"{' and '.join(missing)} cannot be found" if missing else None


class Browser:
    """A window."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, address: str) -> None:
        """Go there."""
        self.driver.get(address)

    def find(self, selector: str) -> WebElement:
        """The first element of a CSS selector."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        """All of them."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str = "body") -> str:
        """What is read there."""
        return self.find(selector).text

    def click(self, selector: str) -> None:
        """Click what leads to another page, and wait for that."""
        self.leave(self.find(selector).click)

    def leave(self, act: Any) -> None:
        """Do what leads to another page, and wait for that."""
        before = self.find("html")
        act()
        WebDriverWait(self.driver, PATIENCE).until(
            lambda _: _gone(before) and self.run("return document.readyState") == "complete"
        )

    def run(self, script: str) -> Any:
        """Run *script*: the tester's; the page can run none."""
        return self.driver.execute_script(script)

    def look(self, *, dark: bool = False, width: int = 1280) -> None:
        """See it in a dark or light room, in a window of that width."""
        media = {
            "features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        }
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def colours(self) -> list[tuple[str, list[float], list[float]]]:
        """Each text that is seen, its colour, and the one it stands on."""
        return [(text, fore, back) for text, fore, back in self.run(_COLOURS)]

    def complaints(self) -> list[str]:
        """What the console says, of errors and of what a policy forbade."""
        logged: list[dict[str, Any]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]  # Selenium leaves it untyped
        return [entry["message"] for entry in logged if entry["level"] in {"SEVERE", "WARNING"}]

    def requested(self) -> set[str]:
        """The address of everything that was asked for since it was asked last, in any window."""
        import json

        found = set()
        for entry in self.driver.get_log("performance"):  # type: ignore[no-untyped-call]  # Selenium leaves it untyped
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.add(message["params"]["request"]["url"])
        return found


def _gone(element: WebElement) -> bool:
    from selenium.common.exceptions import StaleElementReferenceException, WebDriverException

    try:
        element.is_enabled()
    except StaleElementReferenceException:
        return True
    except WebDriverException as e:
        # The browser's own words for the same, asked in the midst of it.
        if "does not belong to the document" in str(e):
            return True
        raise
    return False


@contextmanager
def browsing() -> Iterator[Browser]:
    """A browser with a profile of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
    ):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(PATIENCE)
    try:
        yield Browser(driver)
    finally:
        driver.quit()


def contrast(one: list[float], other: list[float]) -> float:
    """Of two colours; 4.5 is what text needs (WCAG 2.2 section 1.4.3)."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: list[float]) -> float:
    parts = [c / 255 for c in colour]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
