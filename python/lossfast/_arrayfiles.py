"""Arrays in memory or in .npy and .npz files, read one rectangle at a time.

A file is never mapped (a file cut short while it is mapped kills the process), never read as a whole, and never unpickled.  A rectangle is
one slice per axis, `read` as it lies in the file and then made numbers by `decode`.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
import tempfile
import zipfile
import zlib

import numpy as np

from lossfast import _core

__all__ = ["FileArray", "MemoryArray", "open_array"]

_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")


def open_array(source, name, dtype=None):
    """`source`, a path (``file.npz:member`` for a member of an archive) or anything NumPy makes an array of, as something to `read` from.

    Parameters
    ----------
    source : str, os.PathLike or array_like
    name : str
        What error messages call an array that is not a file.
    dtype : {None, 'bfloat16'}
        What the values are where the file cannot say so: `np.save` writes bfloat16 as two-byte voids.
    """
    if isinstance(source, (str, os.PathLike)):
        return FileArray(os.fspath(source), dtype)
    return MemoryArray(source, name, dtype)


class _Array:
    """Name, shape and type, and the decoding of what `read` brings."""

    def _describe(self, name, shape, dtype, declared):
        self.name = name
        self.shape = shape
        self.dtype = dtype
        if declared is not None:
            if declared != "bfloat16":
                raise ValueError(f"{name}: unknown dtype {declared!r}, expected 'bfloat16'")
            if dtype.name not in ("bfloat16", "uint16") and dtype.str != "|V2":
                raise TypeError(f"{name}: two-byte values can be read as bfloat16, its dtype is {dtype}")
        self._bfloat16 = declared == "bfloat16" or dtype.name == "bfloat16"
        if dtype.str == "|V2" and not self._bfloat16:
            raise TypeError(f"{name}: dtype |V2 is what np.save makes of bfloat16; say so with logits_dtype='bfloat16' (--logits-dtype bfloat16)")
        if not self._bfloat16 and (dtype.kind not in "fiub" or dtype.itemsize > 8):
            raise TypeError(f"{name}: expected numbers of up to 64 bits, its dtype is {dtype}")

    @property
    def dtype_name(self):
        """The dtype for people: 'bfloat16' also where NumPy has no word for it."""
        return "bfloat16" if self._bfloat16 else self.dtype.name

    @property
    def is_float(self):
        return self._bfloat16 or self.dtype.kind == "f"

    def decode(self, block):
        """What `read` returned in native byte order, bfloat16 widened to float32 (exactly, so that ml_dtypes is not needed)."""
        if self._bfloat16:
            wide = (block if block.dtype.isnative else block.byteswap()).view(np.uint16).astype(np.uint32)
            wide <<= 16
            return wide.view(np.float32)
        return block if block.dtype.isnative else block.astype(block.dtype.newbyteorder("="))

    def origin(self):
        """What a report says of the array, as plain values."""
        return {"source": self.name, "shape": list(self.shape), "dtype": self.dtype_name}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


class MemoryArray(_Array):
    """An array that is in memory or mapped already."""

    def __init__(self, source, name, dtype=None):
        if _core.is_masked(source):
            raise TypeError(f"{name}: a masked array; pass an ignore_index in the targets, or .filled()")
        self._array = np.asarray(source)
        self._describe(name, self._array.shape, self._array.dtype, dtype)
        # Slowest to fastest axis; the sort is stable, so C order where strides say nothing.
        self.axes = tuple(sorted(range(self._array.ndim), key=lambda axis: -abs(self._array.strides[axis])))

    def read(self, index):
        return self._array[*index, ...]

    def close(self):
        pass


class FileArray(_Array):
    """An array in a .npy file or a member of an .npz file."""

    def __init__(self, path, dtype=None):
        with _reading(path):
            self._stream, size = _open(path)
            try:
                shape, fortran, found = _read_header(self._stream, path)
                self._describe(path, shape, found, dtype)
                self._start = self._stream.tell()
                expected, held = math.prod(shape) * found.itemsize, size - self._start
                if held < expected:
                    raise ValueError(f"{path}: truncated: {shape} {self.dtype_name} values take {expected} bytes, the file holds {held}")
            except BaseException:
                self._stream.close()
                raise
        self.axes = tuple(range(len(shape)))[:: -1 if fortran else 1]

    def read(self, index):
        box = [index[axis] for axis in self.axes]
        shape = [self.shape[axis] for axis in self.axes]
        extent = [part.stop - part.start for part in box]
        block = np.empty(extent, self.dtype)
        if block.size:
            with _reading(self.name):
                self._fill(block.reshape(-1).view(np.uint8), shape, box, extent)
        # `axes` is the identity or its reversal, either of which is its own inverse.
        return block.transpose(self.axes)

    def close(self):
        self._stream.close()

    def _fill(self, block, shape, box, extent):
        """Read the rectangle `box` of a C-ordered array of `shape` into the bytes `block`, one contiguous run after another."""
        outer = max(len(shape) - 1, 0)
        while outer and extent[outer] == shape[outer]:
            outer -= 1
        # Axes from `outer` on make one run: whole axes below a range of axis `outer`.
        strides = [math.prod(shape[axis + 1 :]) * self.dtype.itemsize for axis in range(outer + 1 if shape else 0)]
        run = math.prod(extent[outer:]) * self.dtype.itemsize
        corners = itertools.product(*(range(part.start, part.stop) for part in box[:outer]), *([part.start] for part in box[outer : outer + 1]))
        for destination, corner in zip(block.reshape(-1, run), corners):
            self._read_at(sum(i * stride for i, stride in zip(corner, strides)), memoryview(destination))

    def _read_at(self, offset, destination):
        self._stream.seek(self._start + offset)
        done = 0
        while done < len(destination):
            count = self._stream.readinto(destination[done:])
            if not count:
                raise ValueError(f"{self.name}: truncated: nothing after byte {self._start + offset + done}")
            done += count


@contextlib.contextmanager
def _reading(path):
    """Have whatever fails to be read named."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EINVAL:  # where a damaged archive sends zipfile to look
            raise ValueError(f"{path}: damaged or truncated archive") from error
        if error.filename is None:
            error.filename = path
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # an encrypted member is a RuntimeError
        raise ValueError(f"{path}: damaged or truncated archive: {error}") from error


class _ForwardStream:
    """A zip member: cheap to read forwards; the first step backwards unpacks it into a temporary file."""

    def __init__(self, archive, info):
        self._archive, self._info = archive, info
        self._stream = archive.open(info)
        self._unpacked = False

    def seek(self, position):
        if position < self._stream.tell() and not self._unpacked:
            self._unpack()
        self._stream.seek(position)

    def _unpack(self):
        # Seeking back in a zip member means decompressing from its beginning again.
        whole = tempfile.TemporaryFile()
        with self._archive.open(self._info) as member:
            while piece := member.read(1 << 20):
                whole.write(piece)
        self._stream.close()
        self._stream, self._unpacked = whole, True

    def tell(self):
        return self._stream.tell()

    def read(self, size):
        return self._stream.read(size)

    def readinto(self, destination):
        return self._stream.readinto(destination)

    def close(self):
        self._stream.close()
        self._archive.close()


def _open(path):
    """A stream that begins with a .npy header, and its length in bytes."""
    member = None
    if not os.path.exists(path) and ":" in path:
        path, member = path.rsplit(":", 1)
    stream = open(path, "rb", buffering=0)
    try:
        zipped = stream.read(4) in _ZIP_MAGIC
        if not zipped and member is not None:
            raise ValueError(f"{path}: not an .npz archive, so it has no member {member!r}")
        if not zipped:
            stream.seek(0)
            return stream, os.fstat(stream.fileno()).st_size
    except BaseException:
        stream.close()
        raise
    stream.close()
    archive = zipfile.ZipFile(path)
    try:
        info = _find_member(archive, path, member)
        return _ForwardStream(archive, info), info.file_size
    except BaseException:
        archive.close()
        raise


def _find_member(archive, path, member):
    names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    if not names:
        raise ValueError(f"{path}: a zip archive without .npy members; save arrays with np.savez")
    if member is None and len(names) > 1:
        raise ValueError(f"{path}: holds {', '.join(names)}; name one as {path}:{names[0]}")
    name = names[0] if member is None else member.removesuffix(".npy")
    if name not in names:
        raise ValueError(f"{path}: no member {name!r}, it holds {', '.join(names)}")
    info = archive.getinfo(name + ".npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{path}: member {name!r} is neither stored nor deflated")
    return info


def _read_header(stream, path):
    """Shape, Fortran order and dtype; `stream` stands at the first value afterwards."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(stream)
        if version not in readers:
            raise ValueError(f"format version {version} is for structured arrays")
        shape, fortran, dtype = readers[version](stream)
    except OSError:
        raise
    except Exception as error:  # NumPy parses the header as Python text, and a damaged one fails in any of a parser's ways
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: not an array as np.save or np.savez writes it: {reason}") from error
    if dtype.hasobject:
        raise TypeError(f"{path}: holds pickled Python objects (dtype {dtype}), which are never loaded; expected numbers")
    if any(length < 0 for length in shape):
        raise ValueError(f"{path}: damaged header: shape {shape}")
    return shape, fortran, dtype
