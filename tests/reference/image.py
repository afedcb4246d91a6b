"""Image files, and what Pillow makes of them: read as RGB, and resized.

    python image.py --out FOLDER

`FOLDER/NAME.EXT` are files of many kinds. For each that can be read, `expected.json` says which PNG file has its
pixels as they should be, and how far they may be off: decoders of JPEG and lossy WebP round differently. It
also lists resized images, which must be the same byte for byte.
"""

import argparse
import json
import pathlib

import numpy
from PIL import Image, ImageOps

GENERATOR = numpy.random.default_rng(1)


def photo(width, height):
    """Soft areas, edges and a little noise."""
    y, x = numpy.mgrid[0:height, 0:width]
    red = 128 + 100 * numpy.sin(x / 7.3 + y / 11)
    green = 128 + 90 * numpy.cos(x * y / 300.0) + GENERATOR.normal(0, 6, (height, width))
    blue = x * 200 / width + 55 * (((x // 9) + (y // 7)) % 2)
    return numpy.clip(numpy.stack([red, green, blue], -1), 0, 255).astype(numpy.uint8)


def noise(width, height):
    return GENERATOR.integers(0, 256, (height, width, 3), dtype=numpy.uint8)


def gradient(width, height):
    y, x = numpy.mgrid[0:height, 0:width]
    channels = [x * 255 // (width - 1), y * 255 // (height - 1), (x + y) * 255 // (width + height - 2)]
    return numpy.stack(channels, -1).astype(numpy.uint8)


#: Pixels that are black or white alone: the filters overshoot.
def bars(width, height):
    return (GENERATOR.integers(0, 2, (height, width, 1)) * 255).astype(numpy.uint8).repeat(3, 2)


RESIZED = [
    (photo, (61, 43), [(52, 30), (96, 64), (61, 20), (17, 43), (224, 158)]),
    (noise, (37, 23), [(16, 16), (38, 22), (64, 41), (5, 3), (1, 1)]),
    (gradient, (100, 9), [(33, 33), (101, 8)]),
    (bars, (48, 50), [(31, 31), (47, 51), (96, 17)]),
    (noise, (1, 1), [(4, 3)]),
    (noise, (200, 3), [(7, 7)]),
]


def resized(folder):
    for index, (make, size, targets) in enumerate(RESIZED):
        source = f"resize-{index}.png"
        image = Image.fromarray(make(*size))
        image.save(folder / source)
        for number, (width, height) in enumerate(targets):
            for name, how in ("lanczos", Image.LANCZOS), ("bicubic", Image.BICUBIC):
                result = f"resize-{index}-{number}-{name}.png"
                image.resize((width, height), how).save(folder / result)
                yield {"source": source, "filter": name, "result": result}


def files(folder):
    """Name, pixels as they should be, and how far they may be off."""
    rgb = photo(40, 24)
    image = Image.fromarray(rgb)

    def saved(name, what, expected, tolerance=0, **options):
        what.save(folder / name, **options)
        return name, expected, tolerance

    yield saved("rgb.png", image, rgb)
    yield saved("interlaced-palette.png", image.quantize(31), numpy.asarray(image.quantize(31).convert("RGB")))
    gray = image.convert("L")
    yield saved("gray.png", gray, numpy.asarray(gray.convert("RGB")))
    yield saved("gray.jpg", gray, numpy.asarray(gray.convert("RGB")), 12, quality=95)
    bits = gray.point(lambda v: 255 if v > 128 else 0).convert("1")
    yield saved("one-bit.png", bits, numpy.asarray(bits.convert("RGB")))
    # 16 bits: each value twice is the same gray in 8 bits.
    deep = Image.fromarray(numpy.asarray(gray).astype(numpy.uint16) * 257)
    yield saved("gray-16-bit.png", deep, numpy.asarray(gray.convert("RGB")))
    alpha = numpy.linspace(0, 255, 40 * 24).round().astype(numpy.uint8).reshape(24, 40)
    clear = Image.fromarray(numpy.dstack([rgb, alpha]))
    black = Image.new("RGBA", clear.size, (0, 0, 0, 255))
    black.alpha_composite(clear)
    composed = numpy.asarray(black.convert("RGB"))
    yield saved("alpha.png", clear, composed, 1)
    yield saved("alpha.webp", clear, composed, 1, lossless=True, exact=True)
    yield saved("photo.jpg", image, numpy.asarray(image), 40, quality=95, subsampling=0)
    yield saved("progressive.jpg", image, numpy.asarray(image), 40, quality=95, subsampling=0, progressive=True)
    yield saved("cmyk.jpg", image.convert("CMYK"), numpy.asarray(image), 40, quality=95, subsampling=0)
    yield saved("lossless.webp", image, rgb, 0, lossless=True)
    soft = gradient(40, 24)
    yield saved("lossy.webp", Image.fromarray(soft), soft, 24, quality=90)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        upright = numpy.asarray(ImageOps.exif_transpose(with_exif(folder, soft, exif)).convert("RGB"))
        yield f"orientation-{orientation}.jpg", upright, 8


def with_exif(folder, pixels, exif):
    path = folder / f"orientation-{exif[0x0112]}.jpg"
    Image.fromarray(pixels).save(path, exif=exif, quality=95, subsampling=0)
    return Image.open(path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, required=True)
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    read = []
    for name, pixels, tolerance in files(folder):
        expected = name.replace(".", "-") + ".expected.png"
        Image.fromarray(pixels).save(folder / expected)
        read.append({"file": name, "expected": expected, "tolerance": tolerance})
    table = {"read": read, "resized": list(resized(folder))}
    (folder / "expected.json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
