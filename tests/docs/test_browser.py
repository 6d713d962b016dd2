"""Pages in headless Chromium at desktop and phone width: errors, requests, accessibility."""

import functools
import http.server
import threading
import urllib.parse

import pytest

from launch.report import page as report_page
from tests.launch.report import made

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
# One page of each kind; `make docs` and a look at them are for the others.
PAGES = ("index", "which_method", "methods/inference_scaling", "paper_map", "results",
         "commands/run_rl", "api/rl.rewards")  # fmt: skip


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(site):
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def look(browser, url, size, dark=False):
    """What is wrong with a page: a list of lines."""
    from axe_playwright_python.sync_playwright import Axe

    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    tab = context.new_page()
    parts = urllib.parse.urlsplit(url)
    own, found = f"{parts.scheme}://{parts.netloc}/", []
    tab.on("console", lambda m: found.append(f"console: {m.text}") if m.type == "error" else None)
    tab.on("pageerror", lambda error: found.append(f"script: {error}"))

    def request(each):
        if not each.url.startswith((own, "data:")):
            found.append(f"request: {each.url}")

    tab.on("request", request)
    tab.on("response", lambda r: found.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
    tab.goto(url, wait_until="networkidle")
    wide = tab.evaluate("document.documentElement.scrollWidth")
    if wide > width:
        found.append(f"the page is {wide} pixels wide, on a screen of {width}")
    # The checker loads style sheets by itself, which are no requests of the page.
    faults = list(found)
    for each in Axe().run(tab).response["violations"]:
        if each["impact"] in ("serious", "critical"):
            where = each["nodes"][0]["html"][:150]
            faults.append(f"axe: {each['id']} ({each['impact']}), {len(each['nodes'])} x: {where}")
    context.close()
    return faults


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAGES)
def test_pages_of_the_site(browser, address, name, size):
    assert look(browser, f"{address}/{name}.html", size) == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", made.KINDS)
def test_report_pages(browser, kind, size, tmp_path):
    url = report_page.write_page(made.KINDS[kind](tmp_path)).resolve().as_uri()
    assert look(browser, url, size, dark=size == "phone") == []


@pytest.mark.parametrize(
    "body, fault",
    [
        ("<script>console.error('broken')</script>", "console"),
        ("<script>throw new Error('x')</script>", "script"),
        ("<img alt='' src='http://example.invalid/a.png'>", "request"),
        ("<img src='data:image/png;base64,'>", "axe: image-alt"),
        ("<div style='width: 2000px'>wide</div>", "pixels wide"),
    ],
)
def test_what_is_wrong_is_found(browser, tmp_path, body, fault):
    path = tmp_path / "page.html"
    path.write_text(
        "<!doctype html><html lang=en><title>t</title><meta name=viewport"
        f" content='width=device-width'><main><h1>t</h1>{body}</main></html>"
    )
    assert any(fault in line for line in look(browser, path.as_uri(), "phone"))
