"""The command line: ``lossfast evaluate LOGITS TARGETS``.

A thin layer over `lossfast.evaluate`: options in, a table or JSON out.  Exit codes: 0 fine, 1 the mean loss is above ``--fail-above``, 2 usage,
3 bad data, 130 interrupted.  NumPy is all it needs; on a terminal, rich makes it nicer where it is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import os
import sys
import time

import lossfast
from lossfast._evaluation import LOSSES

__all__ = ["main"]

OK, ABOVE, USAGE, BAD_DATA, INTERRUPTED = 0, 1, 2, 3, 130

_EPILOG = """\
LOGITS and TARGETS are .npy files, or members of .npz files: run.npz:logits. Files are read in
blocks, so that they may be larger than memory, and pickled objects are refused.

--loss ctc takes logits (T, N, C) and labels (N, S), padded, or one utterance's after the other's;
its samples are utterances, and their losses are divided by their numbers of labels.

exit codes: 0 fine, 1 mean loss above --fail-above (or NaN), 2 usage, 3 bad data, 130 interrupted
"""


def main(argv=None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    argv : list of str, optional
        The arguments; default those of the process.

    Examples
    --------
    >>> import lossfast.cli
    >>> lossfast.cli.main(["evaluate", "no-such-file.npy", "targets.npy"])
    3
    """
    if argv is None:
        _prepare_streams()
    parser, evaluate = _parsers()
    arguments = parser.parse_args(argv)
    options = {name: getattr(arguments, name) for name in _OPTIONS if getattr(arguments, name) is not None}
    for name in [*options, *(name for name in ("tokens", "plot") if getattr(arguments, name) and arguments.loss != "ctc")]:
        if name not in LOSSES[arguments.loss].options:
            evaluate.error(f"{_flag(name)} does not apply to {arguments.loss}")
    if arguments.plot and importlib.util.find_spec("matplotlib") is None:
        evaluate.error("--plot needs matplotlib: pip install 'lossfast[plot]'")
    try:
        return _evaluate(arguments, options)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the output has gone; what is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BAD_DATA
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), BAD_DATA)
    except (ValueError, TypeError, IndexError) as error:
        return _fail(str(error), BAD_DATA)
    except MemoryError as error:
        return _fail(f"out of memory: {error}; a smaller --memory may help", BAD_DATA)


def _prepare_streams():
    """Have the process show as an escape what its encoding lacks, and write into nothing where it was started with a stream closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))
        elif stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _fail(message, code):
    print(f"lossfast: error: {message}" if code != INTERRUPTED else f"lossfast: {message}", file=sys.stderr)
    return code


def _evaluate(arguments, options):
    tokens = None if arguments.tokens is None else _read_tokens(arguments.tokens)
    threads = contextlib.nullcontext() if arguments.threads is None else lossfast.num_threads(arguments.threads)
    began = time.perf_counter()
    with threads, _progress() as progress:
        result = lossfast.evaluate(
            arguments.logits,
            arguments.targets,
            loss=arguments.loss,
            worst=max(arguments.worst, 1) if arguments.plot else arguments.worst,
            memory=arguments.memory,
            logits_dtype=arguments.logits_dtype,
            progress=progress,
            **options,
        )
    if arguments.json:
        print(json.dumps({**result.to_dict(), "version": _version()}, allow_nan=False))
    else:
        _print_table(result, time.perf_counter() - began, tokens)
    sys.stdout.flush()
    if arguments.plot:
        _plot(arguments, options, result, tokens)
    above = arguments.fail_above is not None and not result.mean <= arguments.fail_above
    return ABOVE if above else OK


def _plot(arguments, options, result, tokens):
    from lossfast._alignment_plot import plot_worst

    try:
        drawn = plot_worst(arguments.plot, arguments.logits, arguments.targets, result, tokens, arguments.logits_dtype, **options)
    except ValueError as error:  # a format that matplotlib does not know; all else has been read before
        raise ValueError(f"{arguments.plot}: {error}") from error
    print(f"lossfast: {arguments.plot}: alignment of utterance {_index(drawn)}", file=sys.stderr)


def _read_tokens(path):
    """What each class stands for: the lines of a text file, or an array of strings in an .npy file or an .npz file, FILE.npz:NAME."""
    import numpy as np

    file, _, member = (path, "", "") if os.path.exists(path) else path.rpartition(":")
    if not file.endswith((".npy", ".npz")):
        try:
            with open(path, encoding="utf-8") as lines:
                return [line.rstrip("\n") for line in lines]
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: expected lines of UTF-8 text: {error}") from error
    try:
        found = np.load(file)
        arrays = {member: found} if isinstance(found, np.ndarray) else dict(found)
    except OSError:
        raise
    except Exception as error:  # a damaged file fails in any of a parser's ways
        raise ValueError(f"{path}: {error}") from error
    if member not in arrays or arrays[member].dtype.kind != "U" or arrays[member].ndim != 1:
        raise ValueError(f"{path}: expected an array of strings, FILE.npy or FILE.npz:NAME; there is {', '.join(filter(None, arrays)) or 'none'}")
    return arrays[member].tolist()


# --- Arguments


def _version():
    from importlib.metadata import version  # here, since it would add 10 ms to every run

    return version("lossfast")


class _ShowVersion(argparse.Action):
    def __call__(self, parser, *_):
        print(f"lossfast {_version()}")
        parser.exit()


def _bounded(kind, low, high, words):
    def parse(text):
        try:
            value = kind(text)
        except (ValueError, OverflowError):
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected {words}, got {text}")
        return value

    return parse


def _bytes(text):
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    number, unit = (text[:-1], units[text[-1].upper()]) if text[-1:].upper() in units else (text, 1)
    return int(float(number) * unit)


# The losses' own options.  Which loss takes which stands in `LOSSES`.
_OPTIONS = {
    "axis": dict(
        type=_bounded(int, -64, 63, "an integer from -64 to 63"), metavar="N", help="the class axis (default: 1, or 0 for one-dimensional logits)"
    ),
    "weight": dict(metavar="FILE", help="class weights, a .npy file or .npz member"),
    "ignore_index": dict(
        type=_bounded(int, -(1 << 63), (1 << 63) - 1, "a 64-bit integer"), metavar="I", help="targets with this value are not scored (default: -100)"
    ),
    "label_smoothing": dict(type=_bounded(float, 0, 1, "a number from 0 to 1"), metavar="EPS", help="share of the target spread over all classes"),
    "delta": dict(type=_bounded(float, -math.inf, math.inf, "a number"), metavar="D", help="huber_loss: where it becomes linear (default: 1)"),
    "beta": dict(type=_bounded(float, -math.inf, math.inf, "a number"), metavar="B", help="smooth_l1_loss: where it becomes linear (default: 1)"),
    "input_lengths": dict(metavar="FILE", help="ctc: frames of each utterance (default: all)"),
    "target_lengths": dict(metavar="FILE", help="ctc: labels of each utterance (default: all)"),
    "blank": dict(type=_bounded(int, 0, math.inf, "a class"), metavar="C", help="ctc: class of the blank (default: 0)"),
    "batch_first": dict(action="store_const", const=True, help="ctc: logits are (N, T, C)"),
}


def _flag(name):
    return "--" + name.replace("_", "-")


def _parsers():
    parser = argparse.ArgumentParser(prog="lossfast", description="Fast and exact loss functions on CPU.")
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    evaluate = commands.add_parser(
        "evaluate",
        help="score a model's outputs from files",
        description="Score a model's outputs against their targets: mean loss, perplexity, accuracy and the worst samples.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    count = _bounded(int, 0, math.inf, "a count")
    evaluate.add_argument("logits", metavar="LOGITS", help="what the model put out")
    evaluate.add_argument(
        "targets", metavar="TARGETS", help="class indices, class probabilities of the logits' shape, or what else the loss compares"
    )
    evaluate.add_argument("--loss", choices=LOSSES, default="cross_entropy", metavar="LOSS", help=f"{', '.join(LOSSES)} (default: cross_entropy)")
    for name, option in _OPTIONS.items():
        evaluate.add_argument(_flag(name), **option)
    evaluate.add_argument("--tokens", metavar="FILE", help="ctc: what to show for each class; lines of a text file, or strings in FILE.npz:NAME")
    evaluate.add_argument("--plot", metavar="FILE", help="ctc: draw the alignment of the worst utterance (.png, .pdf, .svg; needs matplotlib)")
    evaluate.add_argument("--logits-dtype", choices=["bfloat16"], help="what two-byte values without a type are, as np.save writes bfloat16")
    evaluate.add_argument("--worst", type=count, default=5, metavar="K", help="samples with the largest losses to show (default: 5)")
    above = _bounded(float, -math.inf, math.inf, "a number")
    evaluate.add_argument("--fail-above", type=above, metavar="X", help="exit with 1 if the mean loss is above X")
    evaluate.add_argument("--json", action="store_true", help="print one line of JSON instead of the table")
    size = _bounded(_bytes, 1, math.inf, "a size such as 64M or 1G")
    evaluate.add_argument("--memory", type=size, default=64 << 20, metavar="SIZE", help="logits to hold at once, such as 64M (the default) or 1G")
    evaluate.add_argument("--threads", type=_bounded(int, 1, 4096, "a count of threads"), metavar="N", help="default: all this process may use")
    return parser, evaluate


# --- Table


def _print_table(result, seconds, tokens):
    title, figures, worst = _title(result), _figures(result, seconds), _worst(result, tokens)
    if _rich_serves(sys.stdout):
        return _print_rich(title, figures, worst)
    print(*title, "", sep="\n")
    _print_columns(figures, "<<")
    if worst:
        print("", "worst samples", sep="\n")
        _print_columns(worst, ">>>>")


_LONGEST = 48  # characters of a target in a table


def _print_columns(rows, alignment):
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  " + "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, alignment, widths)).rstrip())


def _print_rich(title, figures, worst):
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False)
    console.print(*title, sep="\n")
    table = Table("", "", show_header=False)
    for name, value in figures:
        table.add_row(name, Text(value, "bold" if name in ("mean loss", "accuracy") else ""))
    console.print(table)
    if worst:
        table = Table(title="worst samples", title_justify="left")
        for name in worst[0]:
            table.add_column(name, justify="right")
        for row in worst[1:]:
            table.add_row(*row)
        console.print(table)


def _title(result):
    arrays = [f"{origin['source']} {tuple(origin['shape'])} {origin['dtype']}" for origin in (result.config["logits"], result.config["targets"])]
    return f"{result.loss} of {arrays[0]}", f"against {arrays[1]}"


def _figures(result, seconds):
    """Names and values; what is zero or does not apply, and would only make the reader ask, is left out."""
    scored = result.samples - result.ignored
    rows = [("samples", f"{result.samples:,}")]
    rows.append(("ignored", f"{result.ignored:,}") if result.infeasible is None else ("infeasible", f"{result.infeasible:,}"))
    if result.denominator != scored:
        rows.append(("sum of weights", f"{result.denominator:.8g}"))
    rows.append(("mean loss", f"{result.mean:.8g}" if scored else "nothing to score"))
    if result.perplexity is not None and scored:
        rows.append(("perplexity", f"{result.perplexity:.6g}"))
    if result.accuracy is not None and scored:
        rows.append(("accuracy", f"{result.accuracy:.2%}  ({result.correct:,} of {scored:,})"))
    if result.token_error_rate is not None:
        rows.append(("token error rate", f"{result.token_error_rate:.2%}  ({result.label_errors:,} of {result.labels:,})"))
    if result.nan:
        rows.append(("NaN losses", f"{result.nan:,}"))
    if result.infinite:
        rows.append(("infinite losses", f"{result.infinite:,}"))
    rows.append(("time", f"{seconds:.2f} s"))
    return rows


def _worst(result, tokens):
    if not result.worst:
        return []
    rows = [(_index(s.index), f"{s.loss:.6g}", _show(s.target, tokens), _show(s.prediction, tokens)) for s in result.worst]
    return [("index", "loss", "target", "predicted"), *rows]


def _show(value, tokens):
    """A class, a number, or a sequence of classes, in the model's own tokens if these are known, cut to what a line holds."""
    if not isinstance(value, list):
        return f"{value:.6g}"
    return _shorten(" ".join(map(str, value)) if tokens is None else _text(value, tokens))


def _text(labels, tokens):
    return "".join(tokens[c] if c < len(tokens) else f"<{c}>" for c in labels)


def _shorten(text):
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _index(index):
    return str(index[0]) if len(index) == 1 else str(index)


# --- Progress


def _rich_serves(stream):
    """Whether `stream` is a terminal and rich is there to write on it."""
    return stream.isatty() and importlib.util.find_spec("rich") is not None


@contextlib.contextmanager
def _progress():
    """`evaluate`'s progress callback: None unless stderr is a terminal, and nothing to be seen of a run that is over at once."""
    if not sys.stderr.isatty():
        yield None
        return
    bar, began = None, time.monotonic()
    with contextlib.ExitStack() as stack:

        def show(done, total):
            nonlocal bar
            if bar is None and done < total and time.monotonic() - began > 0.3:
                bar = stack.enter_context(_rich_bar(total) if _rich_serves(sys.stderr) else _plain_bar(total, began))
            if bar is not None:
                bar(done)

        yield show


@contextlib.contextmanager
def _plain_bar(total, began):
    shown = began

    def show(done):
        nonlocal shown
        now = time.monotonic()
        if now - shown < 0.1:
            return
        shown = now
        share = done / total
        left = (now - began) * (1 - share) / share
        line = f"[{'#' * round(30 * share):<30}] {share:4.0%}  {done:,} of {total:,} samples, {left:.0f} s left"
        print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _rich_bar(total):
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    samples = TextColumn("{task.completed:,} of {task.total:,} samples,")
    columns = BarColumn(), TaskProgressColumn(), samples, TimeRemainingColumn(), TextColumn("left")
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)
