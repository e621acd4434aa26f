"""Configs: `load(path)` reads a config file into a frozen, validated `Config`.

A config file is Python that holds data. It may import its siblings as modules (`from . import det_person, utils`)
and name them as values (`tasks = [det_person]`, `common = utils`). Its other public names are its keys; names with a
leading underscore are its own.
"""

import difflib
import importlib
import itertools
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .checks import check
from .errors import ConfigError
from .schema import Common, Config, DetectionTask, SegmentationTask

__all__ = ["Config", "ConfigError", "load"]

_serial = itertools.count()
Model = TypeVar("Model", bound=BaseModel)


def load(path: str | Path) -> Config:
    """The validated config of the file at `path`.

    Each call runs the file anew. Raises ConfigError, naming file and key, for whatever is wrong with it.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(file, "", "no such config file", "give the path of one, e.g. configs/4pe_resize/multitask.py")
    module = _run(file)
    values = _values(module)
    tasks = values.get("tasks")
    task_files: list[str] = []
    if isinstance(tasks, (list, tuple)):
        values["tasks"] = tuple(_task(entry, file, index, task_files) for index, entry in enumerate(tasks))
    if isinstance(values.get("common"), ModuleType):
        values["common"] = _build(Common, _values(values["common"]), _file_of(values["common"]))
    config = _build(Config, {"file": str(file), **values}, str(file))
    check(config, task_files)
    return config


def _run(file: Path) -> ModuleType:
    """Runs the file as a module of a fresh package, so that `from . import sibling` works in a folder of any name."""
    package = ModuleType(f"_bitroad_config_{next(_serial)}")
    package.__path__ = [str(file.resolve().parent)]
    keep_bytecode = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # a config edited twice within a second must not be read from a stale .pyc
    sys.modules[package.__name__] = package
    importlib.invalidate_caches()
    try:
        return importlib.import_module(f"{package.__name__}.{file.stem}")
    except SyntaxError as error:
        raise ConfigError(error.filename or file, f"line {error.lineno}", error.msg, "correct the Python") from error
    except Exception as error:
        place = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename][-1]
        where, key = (file, "") if place.filename == __file__ else (place.filename, f"line {place.lineno}")
        what = str(error).replace(f"{package.__name__}.", "").replace(package.__name__, file.parent.name)
        raise ConfigError(where, key, f"{type(error).__name__}: {what}") from error
    finally:
        sys.dont_write_bytecode = keep_bytecode
        for name in [name for name in sys.modules if name.split(".")[0] == package.__name__]:
            del sys.modules[name]


def _file_of(module: ModuleType) -> str:
    return str(module.__file__)


def _values(module: ModuleType) -> dict[str, Any]:
    """The keys of a config file: its public names, without modules (other than `common`) and helper functions."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, FunctionType)
        and (not isinstance(value, ModuleType) or name == "common")
    }


def _task(entry: Any, file: Path, index: int, task_files: list[str]) -> DetectionTask | SegmentationTask:
    if isinstance(entry, ModuleType):
        values, source = _values(entry), _file_of(entry)
    elif isinstance(entry, Mapping):
        values, source = dict(entry), str(file)
    else:
        raise ConfigError(file, f"tasks.{index}", f"{entry!r} is no task", "name an imported task file")
    kinds: dict[Any, type[DetectionTask] | type[SegmentationTask]] = {
        "detection": DetectionTask,
        "segmentation": SegmentationTask,
    }
    kind = values.get("kind")
    if kind not in kinds:
        raise ConfigError(source, "kind", f"{kind!r} is no kind of task", f"use one of {sorted(kinds)}")
    task_files.append(source)
    task = _build(kinds[kind], values, source)
    return task.model_copy(update={"data": task.data.beneath(Path(source).resolve().parent)})


def _build(model: type[Model], values: dict[str, Any], file: str) -> Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if part not in ("scenes", "folder"))
        what, cure = _what_and_cure(first, model)
        raise ConfigError(file, key, what, cure) from error


def _what_and_cure(error: Any, model: type[BaseModel]) -> tuple[str, str]:
    """Pydantic's finding in a user's words. A check of ours already reads `what; cure`."""
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(error["loc"][-1]), _keys(model, error["loc"][:-1]), n=1)
        return "unknown key", f"did you mean {near[0]!r}?" if near else "remove it"
    if error["type"] == "missing":
        return "missing", "add it"
    if error["type"] == "value_error":
        what, _, cure = str(error["ctx"]["error"]).partition("; ")
        return what, cure
    if error["type"] == "too_short":
        return "empty", "give at least one entry"
    return f"{error['msg'][0].lower()}{error['msg'][1:]}, got {error['input']!r}", "correct it"


def _keys(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """The keys that the entry at `path` knows, as far as plain nesting leads; empty behind a union."""
    current: Any = model
    for part in path:
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            return []
        current = field.annotation
    return list(getattr(current, "model_fields", {}))
