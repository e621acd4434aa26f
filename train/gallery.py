"""Pictures with their labels beside what a model finds in them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from configs.schema import Config
from runtime.predict import Prediction, Predictor
from train.data.draw import Tiles, tiles_of, write_mosaic
from train.data.samples import Boxes, Either, Sample
from train.validation import validation_sets

SHOWN_SCORE = 0.3  # boxes below it are not drawn
MOSAIC_PICTURES = 4  # of every group of sources


def write_validation_mosaic(predictor: Predictor, config: Config, path: Path) -> None:
    """A few validation pictures of every group of sources, labels beside predictions."""
    rows = []
    for names, pictures in validation_sets(config):
        shown = pictures.spread(MOSAIC_PICTURES)
        rows += [beside(sample, predictor(sample.picture), names, config, pictures.either) for sample in shown]
    write_mosaic(path, rows, config.tasks)


def beside(
    sample: Sample, prediction: Prediction, names: Sequence[str], config: Config, either: Mapping[str, Either]
) -> Tiles:
    """A row of a mosaic: labels and predictions of the tasks `names` in turn."""
    tasks = {name: config.task(name) for name in names}
    labels = of_tasks(sample, names)
    found = found_as_sample(sample, prediction, labels)
    pairs = zip(tiles_of(labels, tasks, either), tiles_of(found, tasks, {}), strict=True)
    return [tile for pair in pairs for tile in pair]


def of_tasks(sample: Sample, names: Sequence[str]) -> Sample:
    """The sample with the labels of some tasks only."""
    boxes = {name: entry for name, entry in sample.boxes.items() if name in names}
    return Sample(sample.picture, boxes, {name: mask for name, mask in sample.masks.items() if name in names})


def found_as_sample(sample: Sample, prediction: Prediction, labels: Sample) -> Sample:
    """What was found for the tasks that `labels` has, as labels themselves."""
    boxes = {}
    for name in labels.boxes:
        found = [entry for entry in prediction.detections if entry.task == name and entry.score >= SHOWN_SCORE]
        boxes[name] = Boxes.of([(*entry.box, entry.class_index, False) for entry in found])
    masks = {name: np.asarray(prediction.masks[name]) for name in labels.masks}
    return Sample(sample.picture, boxes, masks)
