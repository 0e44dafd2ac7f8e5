"""ONNX Runtime's C library as a judge: opens a model, runs it on numpy arrays. Nothing of it is linked or compiled.

OrtApi is a table of functions that only grows (onnxruntime:include/onnxruntime/core/session/onnxruntime_c_api.h); the
places below are those of the functions this judge calls, checked with 1.28.2 and 1.30.0.
"""
import ctypes
import os
import time

import numpy

LIBRARY = "onnx/node_modules/onnxruntime-node/bin/napi-v6/linux/x64/libonnxruntime.so.1"  # below QUANTD_PEERS
API_VERSION = 14
CPU_ARENA, MEMORY_DEFAULT, LOG_FATAL = 1, 0, 4

PLACES = {
    "GetErrorMessage": 2, "CreateEnv": 3, "CreateSession": 7, "Run": 9, "CreateSessionOptions": 10,
    "SetSessionLogSeverityLevel": 22, "SetSessionGraphOptimizationLevel": 23, "SetIntraOpNumThreads": 24,
    "SessionGetInputCount": 30, "SessionGetOutputCount": 31, "SessionGetInputName": 36, "SessionGetOutputName": 37,
    "CreateTensorWithDataAsOrtValue": 49, "GetTensorMutableData": 51, "GetTensorElementType": 60,
    "GetDimensionsCount": 61, "GetDimensions": 62, "GetTensorTypeAndShape": 65, "CreateCpuMemoryInfo": 69,
    "GetAllocatorWithDefaultOptions": 78, "ReleaseStatus": 93, "ReleaseSession": 95, "ReleaseValue": 96,
    "ReleaseTensorTypeAndShapeInfo": 99, "ReleaseSessionOptions": 100,
}
ELEMENTS = {1: "f4", 2: "u1", 3: "i1", 4: "u2", 5: "i2", 6: "i4", 7: "i8", 9: "?", 10: "f2", 11: "f8", 12: "u4", 13: "u8"}
TYPES = {numpy.dtype(v): k for k, v in ELEMENTS.items()}
LEVELS = {"none": 0, "basic": 1, "extended": 2, "all": 99}

Pointer = ctypes.c_void_p


class Absent(Exception):
    """The library is not there: whoever judges by it leaves its tests out, by name."""


class Refused(Exception):
    """What ONNX Runtime says of a model or a run."""


class Api:
    """The functions of the library, each raising Refused where it answers with a status."""

    def __init__(self, folder):
        path = os.path.join(folder or "", LIBRARY)
        if not os.path.exists(path):
            raise Absent(f"no {LIBRARY} (./dev peers fetches it)")
        library = ctypes.CDLL(path)
        base = ctypes.c_void_p * 2
        library.OrtGetApiBase.restype = ctypes.POINTER(base)
        get_api = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_uint32)(library.OrtGetApiBase().contents[0])
        get_version = ctypes.CFUNCTYPE(ctypes.c_char_p)(library.OrtGetApiBase().contents[1])
        self.version = get_version().decode()
        self.table = get_api(API_VERSION)
        self.environment = self.made("CreateEnv", LOG_FATAL, b"judge")
        self.allocator = self.made("GetAllocatorWithDefaultOptions")
        self.memory = self.made("CreateCpuMemoryInfo", CPU_ARENA, MEMORY_DEFAULT)

    def function(self, name, n_args, result=Pointer):
        return ctypes.CFUNCTYPE(result, *[Pointer] * n_args)(self.table[PLACES[name]])

    def call(self, name, *args):
        status = self.function(name, len(args))(*[a if isinstance(a, (int, type(None))) else ctypes.cast(a, Pointer)
                                                  for a in args])
        if status:
            message = self.function("GetErrorMessage", 1, ctypes.c_char_p)(status).decode(errors="replace")
            self.function("ReleaseStatus", 1, None)(status)
            raise Refused(message)

    def made(self, name, *args):
        """The pointer that the function leaves in its last argument."""
        made = Pointer()
        self.call(name, *args, ctypes.byref(made))
        return made

    def release(self, name, pointer):
        self.function(name, 1, None)(pointer)


class Session:
    """A model opened by ONNX Runtime; @level one of LEVELS."""

    def __init__(self, api, path, threads=1, level="all"):
        self.api, self.handle = api, None
        options = api.made("CreateSessionOptions")
        try:
            api.call("SetIntraOpNumThreads", options, threads)
            api.call("SetSessionGraphOptimizationLevel", options, LEVELS[level])
            api.call("SetSessionLogSeverityLevel", options, LOG_FATAL)
            self.handle = api.made("CreateSession", api.environment, str(path).encode(), options)
        finally:
            api.release("ReleaseSessionOptions", options)
        self.inputs, self.outputs = self._names("Input"), self._names("Output")

    def _names(self, which):
        count = ctypes.c_size_t()
        self.api.call(f"SessionGet{which}Count", self.handle, ctypes.byref(count))
        names = (self.api.made(f"SessionGet{which}Name", self.handle, i, self.api.allocator) for i in range(count.value))
        return [ctypes.cast(n, ctypes.c_char_p).value.decode() for n in names]

    def _value(self, array):
        shape = (ctypes.c_int64 * max(1, array.ndim))(*array.shape)
        return self.api.made("CreateTensorWithDataAsOrtValue", self.api.memory, array.ctypes.data, array.nbytes, shape,
                             array.ndim, TYPES[array.dtype])

    def _array(self, value):
        info = self.api.made("GetTensorTypeAndShape", value)
        kind, n_dims = ctypes.c_int(), ctypes.c_size_t()
        self.api.call("GetTensorElementType", info, ctypes.byref(kind))
        self.api.call("GetDimensionsCount", info, ctypes.byref(n_dims))
        shape = (ctypes.c_int64 * max(1, n_dims.value))()
        self.api.call("GetDimensions", info, shape, n_dims.value)
        self.api.release("ReleaseTensorTypeAndShapeInfo", info)
        shape, element = list(shape)[:n_dims.value], numpy.dtype(ELEMENTS[kind.value])
        n = int(numpy.prod(shape))
        data = self.api.made("GetTensorMutableData", value)
        return numpy.frombuffer(ctypes.string_at(data, n * element.itemsize), element).reshape(shape)

    def run(self, feeds, outputs=None, clock=time.perf_counter):
        """{name: array} of @outputs (all), from {name: array}; .seconds: of the run alone, by @clock."""
        outputs = outputs or self.outputs
        kept = {name: numpy.ascontiguousarray(a).reshape(numpy.shape(a)) for name, a in feeds.items()}
        values = [self._value(a) for a in kept.values()]
        results = (Pointer * len(outputs))()
        names = [(ctypes.c_char_p * len(n))(*[x.encode() for x in n]) for n in (list(kept), outputs)]
        try:
            start = clock()
            self.api.call("Run", self.handle, None, names[0], (Pointer * len(values))(*values), len(values), names[1],
                          len(outputs), results)
            self.seconds = clock() - start
            return {name: self._array(Pointer(r)) for name, r in zip(outputs, results)}
        finally:
            for value in values + [Pointer(r) for r in results if r]:
                self.api.release("ReleaseValue", value)

    def milliseconds(self, feeds, repeats=9):
        """The median of @repeats runs, after one that warms up."""
        self.run(feeds)
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            self.run(feeds)
            times.append(1e3 * (time.perf_counter() - start))
        return sorted(times)[len(times) // 2]

    def close(self):
        if self.handle:
            self.api.release("ReleaseSession", self.handle)
            self.handle = None
