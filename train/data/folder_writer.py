"""Writing the data format of `train.data.folder`."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.files import write_atomically
from train.data.errors import DataError
from train.data.folder import ANNOTATIONS
from train.data.samples import Sample, TaskLabels
from train.data.storage import IMAGES, MASKS, SHARDS

UNFINISHED = ".unfinished"  # a file in the folder of a data set that is being written


def refuse_data_set(folder: Path) -> None:
    """DataError if the folder holds a data set already: none is written over."""
    if (folder / ANNOTATIONS).exists():
        raise DataError(f"{folder / ANNOTATIONS}: there is a data set already; give another folder or delete it")


def begin_data_set(folder: Path) -> None:
    """Makes the folder ready for a data set, without what an earlier call left unfinished there.

    DataError if it holds a data set already, or files of the same names that are not ours: nothing is written over.
    """
    refuse_data_set(folder)
    ours = (folder / UNFINISHED).exists()
    for part in (folder / name for name in (IMAGES, MASKS, SHARDS)):
        if ours:
            shutil.rmtree(part, ignore_errors=True)
        elif part.exists():
            raise DataError(f"{part}: is there already; give another folder for the data set or delete it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / UNFINISHED).touch()
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from None


def end_data_set(folder: Path, annotations: bytes) -> None:
    """Writes annotations.json: last and at once, so that a folder that was interrupted is not taken for a data set."""
    write_atomically(folder / ANNOTATIONS, annotations)
    (folder / UNFINISHED).unlink(missing_ok=True)


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
        """Writes annotations.json."""
        content: dict[str, Any] = {"images": self._images, "categories": self._categories}
        content |= {"annotations": self._annotations}
        content |= {"mask_values": self._mask_values} if self._mask_values else {}
        end_data_set(self._folder, (json.dumps(content, indent=1) + "\n").encode())


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
