"""Small images and what PIL makes of them, for the tests of how a site reads images.

Writes client/tests/data/images/*.{png,jpg} and client/tests/data/images.json: for each file the pixels, [3, 8, 8], of the
largest square in its middle, scaled to 8 x 8 by PIL's bilinear interpolation. Needs numpy and Pillow; the files that are
checked in were made with Pillow 12.
"""

import json
import pathlib

import numpy
from PIL import Image

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "client/tests/data"
SIZE = 8
(FOLDER / "images").mkdir(exist_ok=True)


def waves(height, width):
    y, x = numpy.mgrid[0:height, 0:width]
    channels = [numpy.sin(x / 3 + k) * numpy.cos(y / (4 + k)) for k in range(3)]
    return ((numpy.stack(channels, -1) + 1) * 127.5).astype(numpy.uint8)


wide = Image.fromarray(waves(20, 31))
grey16 = Image.fromarray(waves(12, 12)[..., 0].astype(numpy.uint16) * 257)
clear = Image.fromarray(numpy.dstack([waves(9, 8), numpy.full((9, 8), 40, numpy.uint8)]))
images = {
    "wide.png": wide,
    "wide.jpg": wide,
    "tall.png": Image.fromarray(waves(40, 17)),
    "small.png": Image.fromarray(waves(5, 6)),
    "grey.png": wide.convert("L"),
    "grey16.png": grey16,
    "clear.png": clear,
    "palette.png": wide.quantize(16),
}
expected = {}
for name, image in images.items():
    image.save(FOLDER / "images" / name)
    image = Image.open(FOLDER / "images" / name)
    if image.mode.startswith("I"):  # PIL itself would clip 16 bits
        image = Image.fromarray((numpy.asarray(image) // 257).astype(numpy.uint8))
    image = image.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.BILINEAR)
    expected[name] = numpy.asarray(square).transpose(2, 0, 1).reshape(-1).tolist()
(FOLDER / "images.json").write_text(json.dumps(expected) + "\n")
