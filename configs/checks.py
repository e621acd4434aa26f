"""Checks across the entries of a config. Each raises ConfigError with the file and the key to change."""

import re

from .errors import ConfigError
from .schema import Config


def check(config: Config, task_files: list[str]) -> None:
    """All checks; `task_files` holds the file of each task, in the order of `config.tasks`."""
    _steps_fit_their_modes(config)
    _delays_leave_time(config)
    _patterns_compile(config)
    _task_names_differ(config, task_files)
    _heads_find_their_maps(config, task_files)
    _geometries_add_up(config)
    _input_has_a_geometry(config)
    _im_hw_belongs_to_detection(config)


def _steps_fit_their_modes(config: Config) -> None:
    allowed = (("kFloatTraining", "kTrainingWithBN"), ("kTrainingWithoutBN",), ("kTrainingWithoutBN",))
    for index, modes in enumerate(allowed):
        mode = config.solver[index].mode
        if mode not in modes:
            raise ConfigError(
                config.file, f"solver.{index}.mode", f"{mode} is not for step {index}", f"use {' or '.join(modes)}"
            )


def _delays_leave_time(config: Config) -> None:
    """Shifts are frozen after they were observed, and observed once quantization has begun."""
    for index, step in enumerate(config.solver[:3]):
        key = f"solver.{index}.quant_delay"
        if step.quant_delay and step.mode != "kTrainingWithBN":
            raise ConfigError(config.file, key, f"{step.mode} has none", "delete it, or use kTrainingWithBN")
        if step.quant_delay and step.quant_delay + step.freeze_fraction >= 1:
            what = f"with freeze_fraction {step.freeze_fraction} it leaves no iterations to find shifts in"
            raise ConfigError(config.file, key, what, "make their sum less than 1")


def _patterns_compile(config: Config) -> None:
    for step in (1, 2):
        if step not in config.fusion_bn_patterns:
            raise ConfigError(
                config.file, f"fusion_bn_patterns.{step}", "missing", "name the batch norms that this step absorbs"
            )
    for step, patterns in config.fusion_bn_patterns.items():
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(
                    config.file,
                    f"fusion_bn_patterns.{step}",
                    f"{pattern!r} is no regular expression ({error})",
                    "correct it",
                ) from error


def _task_names_differ(config: Config, task_files: list[str]) -> None:
    seen: dict[str, str] = {}
    for task, file in zip(config.tasks, task_files, strict=True):
        if task.name in ("image", "backbone", "neck", "task", "strides"):
            raise ConfigError(file, "name", f"{task.name!r} names a part of every network", "choose another name")
        if task.name in seen:
            raise ConfigError(
                file, "name", f"{task.name!r} is already the name of the task in {seen[task.name]}", "rename one"
            )
        seen[task.name] = file


def _heads_find_their_maps(config: Config, task_files: list[str]) -> None:
    strides = config.common.backbone.strides
    for task, file in zip(config.tasks, task_files, strict=True):
        wanted = task.head.strides if task.kind == "detection" else (task.head.stride,)
        key = "head.strides" if task.kind == "detection" else "head.stride"
        for stride in wanted:
            if stride not in strides:
                raise ConfigError(file, key, f"the network has no map at stride {stride}", f"choose among {strides}")


def _geometries_add_up(config: Config) -> None:
    """A picture of `source_hw` must become the input exactly: scaled to `pyramid_hw`, then cut and padded."""
    for entry in config.common.geometries:
        rows, columns = entry.pyramid_hw
        key, size = f"common.geometries.{entry.name}", f"{entry.height}x{entry.width}"
        if config.common.variant == "resize":
            height, width = rows - entry.cut_top, columns + entry.pad_right
            if (entry.height, entry.width) != (height, width):
                what = f"{size}, but pyramid_hw less cut_top rows and more pad_right columns is {height}x{width}"
                raise ConfigError(config.file, f"{key}.height, width", what, "make the numbers agree")
            scaled = round(entry.source_hw[0] * columns / entry.source_hw[1])
            if rows != scaled:
                what = f"{rows} rows, but {entry.source_hw} scaled to {columns} columns has {scaled}"
                raise ConfigError(config.file, f"{key}.pyramid_hw", what, "make the numbers agree")
            if entry.cut_left:
                cure = "delete it: the resize variant keeps every column"
                raise ConfigError(config.file, f"{key}.cut_left", "not 0", cure)
        elif entry.pad_right or entry.pyramid_hw != entry.source_hw:
            what = "the crop variant cuts from the picture as it is"
            raise ConfigError(config.file, key, what, "make pyramid_hw equal source_hw, and pad_right 0")
        elif entry.cut_top + entry.height > rows or entry.cut_left != (columns - entry.width) // 2:
            what = f"{size} at row {entry.cut_top}, column {entry.cut_left} of {rows}x{columns}"
            raise ConfigError(config.file, key, what, "cut from within the picture, from its middle columns")


def _input_has_a_geometry(config: Config) -> None:
    image = config.int_inference_export_input_shape.image
    sizes = {entry.name: (1, entry.height, entry.width, 3) for entry in config.common.geometries}
    if len(sizes) < len(config.common.geometries):
        raise ConfigError(config.file, "common.geometries", "two geometries have the same name", "rename one")
    if image not in (*sizes, *sizes.values()):
        known = ", ".join(f"{name!r} ({height}x{width})" for name, (_, height, width, _) in sizes.items())
        wanted = f"is named {image!r}" if isinstance(image, str) else f"gives an input of {image[1]}x{image[2]}"
        raise ConfigError(
            config.file,
            "int_inference_export_input_shape.image",
            f"no geometry of utils.py {wanted}",
            f"name one of {known}, or add a geometry",
        )


def _im_hw_belongs_to_detection(config: Config) -> None:
    detects = any(task.kind == "detection" for task in config.tasks)
    given = config.int_inference_export_input_shape.im_hw is not None
    key = "int_inference_export_input_shape.im_hw"
    if given and not detects:
        raise ConfigError(
            config.file, key, "only detection uses this input, and no task is a detection", "delete im_hw"
        )
    if detects and not given:
        raise ConfigError(config.file, key, "missing, and a detection task needs it", "add im_hw=(1, 2)")
