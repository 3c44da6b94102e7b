"""The pictures of the console: `python -m tests.console.picture` makes those of README and docs/console.md anew.

It is the page in Chromium, over the demo's story as far as its mail, with what an operator has said meanwhile. The texts of
the page are in the file, too, so that a test can tell whether the picture is of today's console.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.console import stage

DOCS = Path(__file__).parents[2] / "docs"
# By file: the scheme. They are no wider than they are shown: letters are legible then.
PICTURES = {"console.png": "light", "console-dark.png": "dark"}
WIDTH, HEIGHT = 640, 580
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEYWORD = b"Comment\0\0"  # of a zTXt chunk, and how it is compressed


@contextmanager
def chromium() -> Iterator[Any]:
    """Debian's, by Playwright."""
    from playwright.sync_api import sync_playwright

    found = shutil.which("chromium")
    assert found, "chromium is not here: it is a package of Debian"
    with sync_playwright() as playwright:
        # Chromium has no sandbox for root, which one is in a container.
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield browser
        browser.close()


def drawn(browser: Any, folder: Path) -> dict[str, tuple[bytes, str]]:
    """The pictures, each as a PNG, and the texts that are on it."""
    found: dict[str, tuple[bytes, str]] = {}
    with ExitStack() as stack:
        told = stack.enter_context(stage.Stage(folder))
        for scene in ("work", "tricks", "sending"):
            told.through(scene)
        world = told.world
        world.operator.narrow(agent="sales-agent", tables=["sales"], operations=["select"], why="it tries to write")
        address = stack.enter_context(stage.served(world, folder))
        context = browser.new_context(
            viewport={"width": WIDTH, "height": HEIGHT},
            device_scale_factor=2,
            locale="en-GB",
            timezone_id="UTC",
            reduced_motion="reduce",
        )
        stack.callback(context.close)
        page = context.new_page()
        page.clock.set_fixed_time(world.clock())
        page.goto(address)
        page.locator(".needs li").nth(3).wait_for()
        page.locator(".hour .plot").wait_for()
        for name, scheme in PICTURES.items():
            page.emulate_media(color_scheme=scheme)
            page.wait_for_timeout(800)
            found[name] = small(context.new_page(), page.screenshot()), page.inner_text("body")
    return found


# --- small, and with texts ------------------------------------------------------------------------

_COLORS = 256
# The most frequent colours, and the nearest of them for each pixel: a page has few, but for the edges of its letters.
_QUANTIZE = """
async ([png, most]) => {
    const image = await createImageBitmap(await (await fetch("data:image/png;base64," + png)).blob());
    const canvas = new OffscreenCanvas(image.width, image.height);
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, image.width, image.height);
    const pixels = new Uint32Array(data.buffer);
    const counts = new Map();
    for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
    const palette = [...counts].sort((a, b) => b[1] - a[1]).slice(0, most).map(([pixel]) => pixel);
    const parts = (pixel) => [pixel & 255, (pixel >> 8) & 255, (pixel >> 16) & 255];
    const known = palette.map(parts);
    const places = new Map(palette.map((pixel, place) => [pixel, place]));
    for (const pixel of counts.keys()) {
        if (places.has(pixel)) continue;
        const [r, g, b] = parts(pixel);
        let best = 0, least = Infinity;
        known.forEach(([x, y, z], place) => {
            const far = (x - r) ** 2 + (y - g) ** 2 + (z - b) ** 2;
            if (far < least) [best, least] = [place, far];
        });
        places.set(pixel, best);
    }
    const found = new Uint8Array(pixels.length);
    pixels.forEach((pixel, place) => { found[place] = places.get(pixel); });
    const text = await new Promise((done) => {
        const reader = new FileReader();
        reader.onload = () => done(reader.result);
        reader.readAsDataURL(new Blob([found]));
    });
    return { width: image.width, height: image.height, palette: known.flat(), pixels: text.split(",")[1] };
}
"""


def small(page: Any, png: bytes) -> bytes:
    """The same picture in 256 colours. `page` is an empty one, where pixels are counted faster than here."""
    found = page.evaluate(_QUANTIZE, [b64encode(png).decode(), _COLORS])
    width, height = found["width"], found["height"]
    pixels = b64decode(found["pixels"])
    rows = b"".join(b"\0" + pixels[at : at + width] for at in range(0, width * height, width))
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    pieces = [(b"IHDR", header), (b"PLTE", bytes(found["palette"])), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in pieces)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_texts(png: bytes, texts: str) -> bytes:
    """The picture with the texts in it, before its end."""
    end = png.rindex(b"IEND") - 4
    return png[:end] + _chunk(b"zTXt", _KEYWORD + zlib.compress(texts.encode(), 9)) + png[end:]


def texts_of(png: bytes) -> str:
    """The texts in a picture."""
    assert png.startswith(_SIGNATURE)
    at = len(_SIGNATURE)
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        data = png[at + 8 : at + 8 + length]
        if kind == b"zTXt" and data.startswith(_KEYWORD):
            return zlib.decompress(data[len(_KEYWORD) :]).decode()
        at += length + 12
    raise ValueError("a picture without its texts")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name, chromium() as found:
        for file, picture in drawn(found, Path(name)).items():
            (DOCS / file).write_bytes(with_texts(*picture))
