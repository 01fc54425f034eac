"""Render lines of text, recognise them with a real CTC model, and store its logits.

    pip install rapidocr-onnxruntime==1.4.4 onnx onnxruntime pillow
    python examples/ocr/make_ocr.py

writes beside this script lines.png, what the model saw, and lines.npz with

    logits          (T, N, C) float32   the model's raw outputs, frames beyond a line's length zero
    targets         (N, S) int64        the rendered text as classes, padded with 0
    input_lengths   (N,) int64          frames of each line
    target_lengths  (N,) int64          characters of each line
    charset         (C,) str            '' is CTC's blank, class 0; the last is the rest

The model is PP-OCRv4's recogniser of some 6600 Chinese and Latin characters (Apache-2.0), which ships inside rapidocr-onnxruntime.  To stay
small, the classes kept are the blank, printable ASCII, and one for all the rest whose logit is the rest's log-sum-exp, so that the softmax and
every loss of a text of kept characters are those of the full model.  The fonts are DejaVu (Debian: fonts-dejavu-core).
"""

import argparse
import string
from importlib.resources import files
from itertools import groupby
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from PIL import Image, ImageDraw, ImageFilter, ImageFont

HERE = Path(__file__).parent
FONTS = Path("/usr/share/fonts/truetype/dejavu")
HEIGHT = 48  # pixels, as the model wants it
MARGIN = 4

# Text, font, and how much it is blurred and covered with noise.
LINES = [
    ("The quick brown fox", "DejaVuSans", 0, 0),
    ("Loss functions in C", "DejaVuSerif", 0, 0),
    ("3.14159265358979", "DejaVuSansMono", 0, 0),
    ("f(x) = log(1 + exp(-x))", "DejaVuSansMono", 0, 0),
    ("Mississippi bookkeeper", "DejaVuSerif", 0, 0),
    ("Invoice 20471: $1,284.50", "DejaVuSans-Bold", 0, 0),
    ("faded in the rain", "DejaVuSerif", 2.0, 60),
    ("barely legible at all", "DejaVuSans", 2.5, 60),
]


def main():
    parser = argparse.ArgumentParser(description="Store a CTC model's logits on rendered lines of text.")
    parser.add_argument("--all-classes", metavar="FILE", help="write the logits of all classes, some 10 MB, to this .npz file too")
    arguments = parser.parse_args()

    session, charset = load_model()
    noise = np.random.default_rng(0)
    images = [render(*line, noise) for line in LINES]
    logits = [recognise(session, image) for image in images]
    for (text, *_), x in zip(LINES, logits):
        print(f"{len(x):3} frames  {text!r:27} read as {greedy(x, charset)!r}")

    stack(images).save(HERE / "lines.png", optimize=True)
    if arguments.all_classes:
        store(arguments.all_classes, logits, charset)
    store(HERE / "lines.npz", *merge_rest(logits, charset))


def load_model():
    """The recogniser with its logits among the outputs, and the character of each class."""
    model = onnx.load(files("rapidocr_onnxruntime") / "models" / "ch_PP-OCRv4_rec_infer.onnx")
    softmax = next(node for node in model.graph.node if node.output[0] == model.graph.output[0].name)
    model.graph.output.append(onnx.ValueInfoProto(name=softmax.input[0]))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    characters = session.get_modelmeta().custom_metadata_map["character"].splitlines()
    return session, ["", *characters, " "]


def render(text, font, blur, grain, noise):
    """`text` in black on white, blurred by `blur` pixels and with grey noise of standard deviation `grain`."""
    face = ImageFont.truetype(FONTS / f"{font}.ttf", 32)
    image = Image.new("L", (int(face.getlength(text)) + 2 * MARGIN, HEIGHT), 255)
    ImageDraw.Draw(image).text((MARGIN, HEIGHT // 2), text, fill=0, font=face, anchor="lm")
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(blur)), np.float32) + grain * noise.standard_normal((HEIGHT, image.width))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def recognise(session, image):
    """The logits (T, C) of one line."""
    pixels = (np.asarray(image.convert("RGB"), np.float32) / 255 - 0.5) / 0.5
    return session.run(None, {"x": pixels.transpose(2, 0, 1)[None]})[1][0]


def greedy(logits, charset):
    """The text of the best class of each frame: repeats merged, blanks dropped."""
    return "".join(charset[c] for c, _ in groupby(logits.argmax(axis=-1)))


def merge_rest(logits, charset):
    """Blank and printable ASCII as they are, every other class in one."""
    kept = [0, *(charset.index(c) for c in string.printable if c in charset)]
    rest = np.setdiff1d(np.arange(len(charset)), kept)
    merged = [np.column_stack([x[:, kept], np.logaddexp.reduce(x[:, rest], axis=-1)]) for x in logits]
    return merged, [*(charset[c] for c in kept), "\N{REPLACEMENT CHARACTER}"]


def store(path, logits, charset):
    """Lines of different lengths as one padded batch."""
    texts = [text for text, *_ in LINES]
    batch = np.zeros((max(map(len, logits)), len(logits), len(charset)), np.float32)
    targets = np.zeros((len(texts), max(map(len, texts))), np.int64)
    for n, (x, text) in enumerate(zip(logits, texts)):
        batch[: len(x), n] = x
        targets[n, : len(text)] = [charset.index(c) for c in text]
    np.savez_compressed(
        path,
        logits=batch,
        targets=targets,
        input_lengths=np.array([len(x) for x in logits]),
        target_lengths=np.array([len(text) for text in texts]),
        charset=np.array(charset),
    )


def stack(images):
    """The lines below one another."""
    sheet = Image.new("L", (max(image.width for image in images), HEIGHT * len(images)), 255)
    for row, image in enumerate(images):
        sheet.paste(image, (0, row * HEIGHT))
    return sheet


if __name__ == "__main__":
    main()
