"""The data format on disk: images/, annotations.json (COCO boxes of all detection tasks), masks/TASK/STEM.png (class
index, 255 ignored); or the last two packed (train.data.storage).

A category belongs to the task that its `supercategory` names; categories of a task, by id, are its classes in order.
One with `"labelled": false` is a class that this set does not label. `mask_values` gives values of a task's masks that
stand for several classes, {"seg_lane": {"254": ["solid line", "dashed line"]}}: the pixel is one of them.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import RuntimeRoomError
from runtime.image import decode_picture
from train.data.classes import IGNORE
from train.data.errors import DataError
from train.data.png import decode_labels
from train.data.samples import Boxes, Row, Sample, TaskLabels
from train.data.storage import IMAGES, MASKS, open_storage

ANNOTATIONS = "annotations.json"
NO_MASK = "no such mask; every picture needs one per segmentation task (255 where nothing is labelled)"
TYPES = {  # of what an entry must have
    **dict.fromkeys(("id", "image_id", "category_id", "width", "height"), int),
    **dict.fromkeys(("file_name", "name", "supercategory"), str),
}
LEAST_WITHIN = 0.5  # share of a box that lies in its picture
MAKE = "docs/data.md describes the format, `python -m train.data.generate` writes an example"


class FolderSource:
    """The samples of a data set on disk, in the order of annotations.json. DataError if it is not in the format."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / ANNOTATIONS
        self._storage = open_storage(folder)
        content = _read_json(self._file)
        images, categories, annotations = (
            _list(content, key, self._file) for key in ("images", "categories", "annotations")
        )
        if not images:
            raise DataError(f"{self._file}: 'images' is empty; a data set needs at least one picture")
        self._images = [
            _entry(image, ("id", "file_name", "width", "height"), self._file, "images", n)
            for n, image in enumerate(images)
        ]
        self._check_unique("id", [entry["id"] for entry in self._images])
        self._check_unique("file_name without its suffix", [Path(str(e["file_name"])).stem for e in self._images])
        self._categories, self._box_labels = _read_categories(categories, self._file)
        self._unlabelled = {
            task: tuple(i for i, name in enumerate(entry.classes or ()) if name in entry.unlabelled)
            for task, entry in self._box_labels.items()
        }
        self._annotations = self._by_image(annotations)
        either = _read_mask_values(content.get("mask_values", {}), self._file)
        self._mask_tasks = self._storage.mask_tasks()
        self._mask_labels = {task: TaskLabels(None, either=either.get(task, {})) for task in self._mask_tasks}

    @property
    def labels(self) -> Mapping[str, TaskLabels]:
        """What is labelled, by task."""
        return {**self._box_labels, **self._mask_labels}

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        entry = self._images[index]
        name, *masks = self._names(index)
        where = self._storage.where(name)
        try:
            picture = decode_picture(self._read(name, "no such picture"), where)
        except RuntimeRoomError as error:
            raise DataError(str(error)) from None
        size = (picture.shape[0], picture.shape[1])
        if size != (entry["height"], entry["width"]):
            raise DataError(
                f"{where}: is {size[0]} x {size[1]} pixels, {self._file} says {entry['height']} x {entry['width']}; "
                "correct the entry"
            )
        rows = self._annotations.get(entry["id"], [])
        boxes = {
            task: Boxes.of([row for of_task, row in rows if of_task == task], unlabelled)
            for task, unlabelled in self._unlabelled.items()
        }
        contents = zip(self._mask_tasks, masks, strict=True)
        found = {
            task: decode_mask(self._read(mask, NO_MASK), self._storage.where(mask), size) for task, mask in contents
        }
        return Sample(picture, boxes, found)

    def files_of(self, index: int) -> list[tuple[str, bytes]]:
        """(name, content) of the files of a picture: its own, then its masks. DataError if one is missing."""
        return [(name, self._read(name, "no such file")) for name in self._names(index)]

    def _names(self, index: int) -> list[str]:
        """Of the picture's file, then of its masks, one for every task."""
        file = Path(str(self._images[index]["file_name"]))
        return [f"{IMAGES}/{file.as_posix()}", *(f"{MASKS}/{task}/{file.stem}.png" for task in self._mask_tasks)]

    def _read(self, name: str, missing: str) -> bytes:
        content = self._storage.read(name)
        if content is None:
            raise DataError(f"{self._storage.where(name)}: {missing}")
        return content

    def _check_unique(self, what: str, values: list[Any]) -> None:
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise DataError(
                f"{self._file}: two images have the same {what}, {twice[0]}, and would share labels; rename one"
            )

    def _by_image(self, annotations: list[Any]) -> dict[Any, list[tuple[str, Row]]]:
        known = {image["id"]: image for image in self._images}
        result: dict[Any, list[tuple[str, Row]]] = {}
        for number, raw in enumerate(annotations):
            where = f"{self._file}: annotations[{number}]"
            entry = _entry(raw, ("image_id", "category_id", "bbox"), self._file, "annotations", number)
            if entry["image_id"] not in known:
                raise DataError(
                    f"{where}: image_id {entry['image_id']} is not among the images; remove it or add the image"
                )
            if entry["category_id"] not in self._categories:
                raise DataError(
                    f"{where}: category_id {entry['category_id']} is not among the categories; add the category"
                )
            task, index = self._categories[entry["category_id"]]
            if index in self._unlabelled[task]:
                raise DataError(
                    f"{where}: its category is not labelled in this set, says its entry; correct one of them"
                )
            box = entry["bbox"]
            _check_box(box, known[entry["image_id"]], where)
            row = (box[0], box[1], box[0] + box[2], box[1] + box[3], index, bool(entry.get("iscrowd", 0)))
            result.setdefault(entry["image_id"], []).append((task, row))
        return result


def _check_box(box: Any, image: Mapping[str, Any], where: str) -> None:
    """A box that hardly touches its picture would be ignored without a word: most of them are corners, not sizes."""
    numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(v, (int, float)) for v in box)
    if not numbers or not all(map(math.isfinite, box)) or box[2] <= 0 or box[3] <= 0:
        raise DataError(f"{where}: bbox {box} must be [x, y, width, height] with a width and a height above 0")
    x, y, width, height = box
    within = max(0, min(x + width, image["width"]) - max(x, 0)) * max(0, min(y + height, image["height"]) - max(y, 0))
    if within < LEAST_WITHIN * width * height:
        raise DataError(
            f"{where}: bbox {box} lies for the most part outside its picture of {image['width']} x {image['height']}; "
            "it must be [x, y, width, height]"
        )


def decode_mask(content: bytes, where: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Class indices (h, w) of a mask file. DataError if it is no grey PNG of 8 bits at most, or of another size."""
    mask = decode_labels(content)
    if mask is None:
        raise DataError(f"{where}: cannot be decoded; write the mask again as PNG")
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise DataError(
            f"{where}: has shape {mask.shape} and type {mask.dtype}; "
            "a mask is a PNG of class indices, in grey of 8 bits at most and without a palette"
        )
    if mask.shape != size:
        raise DataError(
            f"{where}: is {mask.shape[0]} x {mask.shape[1]} pixels, its picture {size[0]} x {size[1]}; make them equal"
        )
    return mask.astype(np.uint8, copy=False)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"{path}: no such file, so its folder is no data set; {MAKE}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: is not valid JSON ({error}); {MAKE}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: must be an object with images, categories, annotations; {MAKE}")
    return content


def _list(content: dict[str, Any], key: str, path: Path) -> list[Any]:
    value = content.get(key)
    if not isinstance(value, list):
        raise DataError(f"{path}: '{key}' must be a list; {MAKE}")
    return value


def _entry(raw: Any, keys: tuple[str, ...], path: Path, name: str, number: int) -> dict[str, Any]:
    missing = [key for key in keys if not isinstance(raw, dict) or key not in raw]
    if missing:
        raise DataError(f"{path}: {name}[{number}] lacks {', '.join(missing)}; {MAKE}")
    for key in keys:
        if key in TYPES and not isinstance(raw[key], TYPES[key]):
            what = "a text" if TYPES[key] is str else "a whole number"
            raise DataError(f"{path}: {name}[{number}]: {key} is {raw[key]!r}, must be {what}; {MAKE}")
    return dict(raw)


def _read_categories(categories: list[Any], path: Path) -> tuple[dict[Any, tuple[str, int]], dict[str, TaskLabels]]:
    """(task, class index) by category id, and what is labelled by task."""
    entries = [_entry(raw, ("id", "name", "supercategory"), path, "categories", n) for n, raw in enumerate(categories)]
    if len({entry["id"] for entry in entries}) < len(entries):
        raise DataError(f"{path}: two categories have the same id; give each its own")
    names: dict[str, list[str]] = defaultdict(list)
    unlabelled: dict[str, list[str]] = defaultdict(list)
    places: dict[Any, tuple[str, int]] = {}
    for entry in sorted(entries, key=lambda entry: entry["id"]):
        task, name = str(entry["supercategory"]), str(entry["name"])
        places[entry["id"]] = (task, len(names[task]))
        names[task].append(name)
        if not entry.get("labelled", True):
            unlabelled[task].append(name)
    return places, {task: TaskLabels(tuple(of), tuple(unlabelled[task])) for task, of in names.items()}


def _read_mask_values(values: Any, path: Path) -> dict[str, dict[int, tuple[str, ...]]]:
    """Names of classes by task and value of its masks."""
    try:
        found = {
            task: {int(value): tuple(map(str, names)) for value, names in entry.items()}
            for task, entry in values.items()
        }
    except (AttributeError, TypeError, ValueError):
        found = {"": {0: ()}}
    for task, entry in found.items():
        for value, of in entry.items():
            if not 0 <= value < IGNORE or len(set(of)) < 2:
                raise DataError(
                    f"{path}: mask_values{f' of {task}' if task else ''} must map values below {IGNORE} to two or more "
                    f'class names, as {{"seg_lane": {{"254": ["solid line", "dashed line"]}}}}; {MAKE}'
                )
    return found
