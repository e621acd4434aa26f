"""The data format on disk: images/, annotations.json (COCO boxes of all detection tasks), masks/TASK/STEM.png (class
index, 255 ignored).

A category belongs to the task that its `supercategory` names; categories of a task, by id, are its classes in order.
One with `"labelled": false` is a class that this set does not label. `mask_values` gives values of a task's masks that
stand for several classes, {"seg_lane": {"254": ["solid line", "dashed line"]}}: the pixel is one of them.
"""

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.errors import RuntimeRoomError
from runtime.image import read_picture
from train.data.classes import IGNORE
from train.data.errors import DataError
from train.data.samples import Boxes, Row, Sample, TaskLabels

ANNOTATIONS, IMAGES, MASKS = "annotations.json", "images", "masks"
MAKE = "docs/data.md describes the format, `python -m train.data.generate` writes an example"


class FolderSource:
    """The samples of a data set on disk, in the order of annotations.json. DataError if it is not in the format."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / ANNOTATIONS
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
        self._mask_tasks = sorted(path.name for path in (folder / MASKS).glob("*") if path.is_dir())
        self._mask_labels = {task: TaskLabels(None, either=either.get(task, {})) for task in self._mask_tasks}

    @property
    def labels(self) -> Mapping[str, TaskLabels]:
        """What is labelled, by task."""
        return {**self._box_labels, **self._mask_labels}

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        entry = self._images[index]
        path = self._folder / IMAGES / str(entry["file_name"])
        try:
            picture = read_picture(path)
        except RuntimeRoomError as error:
            raise DataError(str(error)) from None
        size = picture.shape[:2]
        if size != (entry["height"], entry["width"]):
            raise DataError(
                f"{path}: is {size[0]} x {size[1]} pixels, {self._file} says {entry['height']} x {entry['width']}; "
                "correct the entry"
            )
        rows = self._annotations.get(entry["id"], [])
        boxes = {
            task: Boxes.of([row for name, row in rows if name == task], unlabelled)
            for task, unlabelled in self._unlabelled.items()
        }
        masks = {
            task: read_mask(self._folder / MASKS / task / f"{path.stem}.png", (size[0], size[1]))
            for task in self._mask_tasks
        }
        return Sample(picture, boxes, masks)

    def _check_unique(self, what: str, values: list[Any]) -> None:
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise DataError(
                f"{self._file}: two images have the same {what}, {twice[0]}, and would share labels; rename one"
            )

    def _by_image(self, annotations: list[Any]) -> dict[Any, list[tuple[str, Row]]]:
        known = {image["id"] for image in self._images}
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
            if not (
                isinstance(box, list)
                and len(box) == 4
                and all(isinstance(v, (int, float)) for v in box)
                and box[2] > 0
                and box[3] > 0
            ):
                raise DataError(f"{where}: bbox {box} must be [x, y, width, height] with a width and a height above 0")
            row = (box[0], box[1], box[0] + box[2], box[1] + box[3], index, bool(entry.get("iscrowd", 0)))
            result.setdefault(entry["image_id"], []).append((task, row))
        return result


def read_mask(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Class indices (h, w) of a mask file. DataError if it is missing, no 8 bit grey PNG, or of another size."""
    if not path.is_file():
        raise DataError(
            f"{path}: no such mask; every picture needs one per segmentation task (255 where nothing is labelled)"
        )
    mask = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED) if path.stat().st_size else None
    if mask is None:
        raise DataError(f"{path}: cannot be decoded; write the mask again as PNG")
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise DataError(
            f"{path}: has shape {mask.shape} and type {mask.dtype}; "
            "a mask is an 8 bit single channel PNG of class indices"
        )
    if mask.shape != size:
        raise DataError(
            f"{path}: is {mask.shape[0]} x {mask.shape[1]} pixels, its picture {size[0]} x {size[1]}; make them equal"
        )
    return mask


class FolderWriter:
    """Writes samples in the format, annotations.json at the end. `labels` say what the samples hold; without names of
    classes they are of masks.
    """

    def __init__(self, folder: Path, labels: Mapping[str, TaskLabels]) -> None:
        self._folder = folder
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._ids: dict[tuple[str, int], int] = {}
        self._categories: list[dict[str, Any]] = []
        self._mask_values: dict[str, dict[str, list[str]]] = {}
        for task, entry in labels.items():
            for index, name in enumerate(entry.classes or ()):
                self._ids[task, index] = len(self._categories) + 1
                category = {"id": len(self._categories) + 1, "name": name, "supercategory": task}
                self._categories.append(category | ({"labelled": False} if name in entry.unlabelled else {}))
            if entry.either:
                self._mask_values[task] = {str(value): list(names) for value, names in entry.either.items()}

    def add(self, stem: str, sample: Sample, file: Path | None = None) -> None:
        """Writes masks as PNG and the picture, as PNG, too, or as a copy of `file`; notes the boxes."""
        name = f"{stem}.png"
        if file is None:
            write_png(self._folder / IMAGES / name, cv2.cvtColor(sample.picture, cv2.COLOR_RGB2BGR))
        else:
            name = f"{stem}{file.suffix.lower()}"
            copy_file(file, self._folder / IMAGES / name)
        number = len(self._images) + 1
        height, width = sample.picture.shape[:2]
        self._images.append({"id": number, "file_name": name, "width": width, "height": height})
        for task, boxes in sample.boxes.items():
            for corners, index, ignore in zip(
                boxes.boxes.tolist(), boxes.classes.tolist(), boxes.ignore.tolist(), strict=True
            ):
                x1, y1, x2, y2 = corners
                self._annotations.append(
                    {
                        "id": len(self._annotations) + 1,
                        "image_id": number,
                        "category_id": self._ids[task, index],
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": int(ignore),
                    }
                )
        for task, mask in sample.masks.items():
            write_png(self._folder / MASKS / task / f"{stem}.png", mask)

    def close(self) -> None:
        """Writes annotations.json: last, so that a folder that was interrupted is not taken for a data set."""
        content: dict[str, Any] = {"images": self._images, "categories": self._categories}
        content |= {"annotations": self._annotations}
        content |= {"mask_values": self._mask_values} if self._mask_values else {}
        (self._folder / ANNOTATIONS).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Writes (h, w) or (h, w, 3) BGR bytes, making the folder. DataError if the disk refuses."""
    done, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 2])
    try:
        if not done:
            raise OSError(0, "the encoder failed")
        path.parent.mkdir(parents=True, exist_ok=True)
        data.tofile(path)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror}); choose another --out or free some space"
        ) from None


def copy_file(source: Path, target: Path) -> None:
    """Copies a file, making the folder. DataError if the disk refuses."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except OSError as error:
        raise DataError(
            f"{target}: cannot be written ({error.strerror}); choose another folder or free some space"
        ) from None


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
    return dict(raw)


def _read_categories(categories: list[Any], path: Path) -> tuple[dict[Any, tuple[str, int]], dict[str, TaskLabels]]:
    """(task, class index) by category id, and what is labelled by task."""
    entries = [_entry(raw, ("id", "name", "supercategory"), path, "categories", n) for n, raw in enumerate(categories)]
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
