"""The Relax pair of a model: `-symbol.json` (the module) and `-0000.params` (its weights), both byte-reproducible."""

import hashlib
import json
from pathlib import Path, PurePath

import numpy as np
import tvm
from tvm import relax

from compile.errors import CompileError
from runtime.files import write_atomically

Parameters = dict[str, np.ndarray]
SPAN_POSITIONS = ("line", "column", "end_line", "end_column")


def pair_of(prefix: Path) -> tuple[Path, Path]:
    """The two files of `RUN/<name>`: `<name>-symbol.json` and `<name>-0000.params`."""
    return prefix.with_name(prefix.name + "-symbol.json"), prefix.with_name(prefix.name + "-0000.params")


def sha256_of(content: bytes) -> str:
    """Hex digest under which the manifest knows a file or a parameter."""
    return hashlib.sha256(content).hexdigest()


def parameter_digests(parameters: Parameters) -> dict[str, str]:
    """Digest of every parameter's dtype, shape and bytes, by name."""
    return {
        name: sha256_of(f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
        for name, value in sorted(parameters.items())
    }


def save_pair(prefix: Path, module: tvm.IRModule, parameters: Parameters) -> None:
    """Writes module and weights; equal inputs give equal bytes."""
    symbol, params = pair_of(prefix)
    tensors = {name: tvm.runtime.tensor(np.asarray(value, order="C")) for name, value in sorted(parameters.items())}
    write_atomically(params, bytes(tvm.runtime.save_param_dict(tensors)))
    write_atomically(symbol, portable(str(tvm.ir.save_json(module))).encode())


def portable(graph: str) -> str:
    """TVM's JSON of a module without positions in source files: equal modules give equal bytes, made anywhere."""
    content = json.loads(graph)
    for node in content["nodes"]:
        if node["type"] == "ir.SourceName":
            node["data"] = PurePath(node["data"]).name
        elif node["type"] == "ir.Span":
            node["data"].update(dict.fromkeys(SPAN_POSITIONS, 0))
    return json.dumps(content, separators=(",", ":"))


def load_pair(prefix: Path) -> tuple[tvm.IRModule, Parameters]:
    """Reads a pair and checks that every weight that the module names is there with its shape and dtype.

    Raises CompileError naming the file, and the parameter where one is wrong.
    """
    symbol, params = pair_of(prefix)
    for path in (symbol, params):
        if not path.is_file():
            raise CompileError(f"{path}: no such file; `python -m compile.build` writes it")
    try:
        module = tvm.ir.load_json(symbol.read_text(encoding="utf-8"))
        if not isinstance(module, tvm.IRModule):
            raise ValueError(f"it holds a {type(module).__name__}, not a module")
        weights = weight_vars(module)
    except Exception as error:
        raise CompileError(f"{symbol}: not a module saved by Bitroad ({first_line(error)}); build it again") from error
    try:
        content = params.read_bytes()
        loaded = tvm.runtime.load_param_dict(content)
        whole = len(tvm.runtime.save_param_dict(loaded))
        if len(content) != whole:  # a cut in the last parameter: TVM leaves there whatever the memory held
            raise ValueError(f"{len(content)} bytes where {whole} belong")
    except Exception as error:
        raise CompileError(
            f"{params}: truncated or not a parameter file ({first_line(error)}); build it again"
        ) from error
    parameters = {str(name): value.numpy() for name, value in loaded.items()}
    for var in weights:
        value = parameters.get(var.name)
        wanted = (tuple(int(size) for size in var.ty.shape), str(var.ty.dtype))
        if value is None:
            raise CompileError(f"{params}: parameter {var.name} is missing; {symbol.name} needs it. Build both again")
        if (value.shape, str(value.dtype)) != wanted:
            raise CompileError(
                f"{params}: parameter {var.name} is {value.dtype}{list(value.shape)}, but {symbol.name} wants "
                f"{wanted[1]}{list(wanted[0])}; build both again"
            )
    return module, parameters


def weight_vars(module: tvm.IRModule) -> list[relax.Var]:
    """Parameters of `main` that are weights: all but the leading `num_input` ones."""
    main = module["main"]
    return list(main.params)[int(main.attrs["num_input"]) :]


def first_line(error: Exception) -> str:
    """The last line of an error's text that says something; TVM puts a backtrace before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
