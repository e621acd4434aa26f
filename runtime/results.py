"""Results on disk: results.json, the same in COCO's format, and pictures. Every file appears whole or not at all."""

import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from runtime.files import write_atomically
from runtime.image import Picture
from runtime.predict import Detection, Prediction
from runtime.schema import DetectionTask, Task

PathLike = str | os.PathLike[str]

SAVE_EVERY = 10.0  # seconds; what a power cut may cost
JPEG_QUALITY = 92


class ResultsWriter:
    """Collects what is found and writes it to three files of `folder`.

    - `results.json`: {"model", "tasks", "images": [{"file", "width", "height", "detections": [{"task", "class",
    "score", "box"}], "masks": {task: file}}], "failed": [{"file", "error"}]}; boxes are x1, y1, x2, y2 in pixels.
    - `coco_results.json`: COCO's result format, boxes x, y, width, height.
    - `coco_images.json`: the images and categories that the ids in it stand for, COCO's annotation format without
    annotations.
    """

    def __init__(self, folder: Path, model: str, tasks: Sequence[Task]) -> None:
        self._folder = folder
        self._model = model
        self._tasks = [task.name for task in tasks]
        self._categories = coco_categories(tasks)
        self._category_ids = {(entry["supercategory"], entry["name"]): entry["id"] for entry in self._categories}
        self._images: list[dict[str, Any]] = []
        self._failed: list[dict[str, str]] = []
        self._saved = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def failed(self) -> list[dict[str, str]]:
        """What went wrong so far: {"file", "error"}."""
        return self._failed

    @property
    def count(self) -> int:
        """Number of pictures and frames so far."""
        return len(self._images)

    def add(self, file: str, prediction: Prediction, masks: dict[str, str], frame: int | None = None) -> None:
        """Adds a picture, or one frame of a video; `masks` maps tasks to files, relative to the folder."""
        height, width = prediction.picture_hw
        entry: dict[str, Any] = {"file": file}
        if frame is not None:
            entry["frame"] = frame
        entry |= {
            "width": width,
            "height": height,
            "detections": [_detection_entry(detection) for detection in prediction.detections],
            "masks": masks,
        }
        self._images.append(entry)
        if time.monotonic() - self._saved > SAVE_EVERY:
            self.save()

    def add_failure(self, file: str, error: str) -> None:
        """Adds a file that could not be processed."""
        self._failed.append({"file": file, "error": error})

    def save(self) -> None:
        """Writes the three files with all that was added so far."""
        write_json(
            self._folder / "results.json",
            {"model": self._model, "tasks": self._tasks, "images": self._images, "failed": self._failed},
        )
        images, results = [], []
        for image_id, entry in enumerate(self._images, start=1):
            name = entry["file"] if "frame" not in entry else f"{entry['file']}#{entry['frame']}"
            images.append({"id": image_id, "file_name": name, "width": entry["width"], "height": entry["height"]})
            for found in entry["detections"]:
                x1, y1, x2, y2 = found["box"]
                results.append(
                    {
                        "image_id": image_id,
                        "category_id": self._category_ids[found["task"], found["class"]],
                        "bbox": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
                        "score": found["score"],
                    }
                )
        write_json(self._folder / "coco_results.json", results)
        write_json(self._folder / "coco_images.json", {"images": images, "categories": self._categories})
        self._saved = time.monotonic()


def coco_categories(tasks: Iterable[Task]) -> list[dict[str, Any]]:
    """COCO categories of the detection tasks' classes: ids from 1 in the tasks' order, the task as supercategory."""
    pairs = [(task.name, entry.name) for task in tasks if isinstance(task, DetectionTask) for entry in task.classes]
    return [{"id": index, "name": name, "supercategory": task} for index, (task, name) in enumerate(pairs, start=1)]


def _detection_entry(detection: Detection) -> dict[str, Any]:
    return {
        "task": detection.task,
        "class": detection.class_name,
        "score": round(detection.score, 4),
        "box": [round(edge, 2) for edge in detection.box],
    }


def write_json(path: PathLike, data: Any) -> None:
    """Writes JSON in one step, an entry of a list to a line; in ASCII: names may hold bytes that are no character."""
    write_atomically(Path(path), (_json_text(data) + "\n").encode())


def _json_text(data: Any) -> str:
    """An indented text would take Python ten times as long, which counts on a stream of pictures."""
    if isinstance(data, dict):
        return "{" + ",\n".join(f"{json.dumps(key)}: {_json_text(value)}" for key, value in data.items()) + "}"
    if isinstance(data, list):
        return "[" + ",\n".join(map(json.dumps, data)) + "]"
    return json.dumps(data)


def write_mask(path: PathLike, mask: npt.NDArray[np.uint8]) -> None:
    """Writes a class-index PNG, one channel of 8 bits, in one step."""
    write_atomically(Path(path), cv2.imencode(".png", mask)[1].tobytes(), sync=False)


def write_picture(path: PathLike, picture: Picture) -> None:
    """Writes an RGB picture as JPEG, in one step."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
    write_atomically(Path(path), data, sync=False)
