"""Embedded scenes: the same everywhere, labels that agree with each other, every class present."""

import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from train.data.canvas import Canvas, Surface
from train.data.classes import (
    DETECTION_CLASSES,
    LANE,
    PEDESTRIAN,
    SEGMENTATION_CLASSES,
    VEHICLE,
)
from train.data.errors import DataError
from train.data.layout import plan_camera
from train.data.road import plan_road, strip
from train.data.scenes import SOURCE_SIZES, Scene, render_scene

SMALL = (360, 640)
COUNT = 40
# The first 16 digits of the first scenes' digests, whether OpenCV and numpy compute with SSE, AVX2 or AVX-512.
DIGESTS = """
1e658b399bba495a ce1165c4673e2a5a a614643870873407 3d017b4d239c44ad 410ca71d62c30f40 df0d94e499c73cfd
25fcb337d0904ba1 26f9d541fef70857 ba048022dc61ebcf 30491a4587584eb4 fe2985a9e30b9b7a edde99c32890b334
"""


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render_scene(seed, SMALL) for seed in range(COUNT)]


def digest(scene: Scene) -> str:
    masks = b"".join(scene.masks[task].tobytes() for task in sorted(scene.masks))
    boxes = repr((sorted(scene.boxes.items()), sorted(scene.ignored.items()))).encode()
    return hashlib.sha256(scene.image.tobytes() + masks + boxes).hexdigest()


def test_two_processes_draw_the_same_scene(repository: Path) -> None:
    # Seeds with rain, snow, fog, night.
    code = (
        "import hashlib\nfrom train.data.scenes import render_scene\n"
        "for seed in range(6):\n"
        "    s = render_scene(seed, (360, 640))\n"
        "    m = b''.join(s.masks[t].tobytes() for t in sorted(s.masks))\n"
        "    b = repr((sorted(s.boxes.items()), sorted(s.ignored.items()))).encode()\n"
        "    print(hashlib.sha256(s.image.tobytes() + m + b).hexdigest())\n"
    )
    other = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert other.stdout.split() == [digest(render_scene(seed, SMALL)) for seed in range(6)]


def test_every_machine_draws_the_same_scenes(scenes: list[Scene]) -> None:
    expected = DIGESTS.split()
    assert [digest(scene)[:16] for scene in scenes[: len(expected)]] == expected


def test_scenes_differ(scenes: list[Scene]) -> None:
    assert len({digest(scene) for scene in scenes}) == COUNT


@pytest.mark.parametrize("size", SOURCE_SIZES)
def test_all_source_sizes(size: tuple[int, int]) -> None:
    scene = render_scene(11, size)
    assert scene.image.shape == (*size, 3)
    assert scene.image.dtype == np.uint8
    assert set(scene.masks) == set(SEGMENTATION_CLASSES)
    assert all(mask.shape == size and mask.dtype == np.uint8 for mask in scene.masks.values())
    assert set(scene.boxes) == set(DETECTION_CLASSES)


def test_boxes_lie_in_the_picture_and_have_known_classes(scenes: list[Scene]) -> None:
    for scene in scenes:
        for task, boxes in [*scene.boxes.items(), *scene.ignored.items()]:
            for x1, y1, x2, y2, index in boxes:
                assert 0 <= x1 < x2 <= SMALL[1]
                assert 0 <= y1 < y2 <= SMALL[0]
                assert 0 <= index < len(DETECTION_CLASSES[task])


def test_boxes_fit_the_class_mask(scenes: list[Scene]) -> None:
    """Every side of a pedestrian's or vehicle's box touches a pixel of that class: boxes are tight."""
    pairs = (("det_person", 0, PEDESTRIAN), ("det_vehicle_sign", 0, VEHICLE))
    for scene in scenes:
        mask = scene.masks["seg_default"]
        for task, index, label in pairs:
            for x1, y1, x2, y2, found in scene.boxes[task]:
                if found == index:
                    window = mask[y1:y2, x1:x2] == label
                    assert window[0].any()
                    assert window[-1].any()
                    assert window[:, 0].any()
                    assert window[:, -1].any()


def test_fronts_and_rears_lie_on_a_vehicle(scenes: list[Scene]) -> None:
    for scene in scenes:
        every = scene.boxes["det_vehicle_sign"] + scene.ignored["det_vehicle_sign"]
        vehicles = [box for box in every if box[4] == 0]
        for x1, y1, x2, y2, _ in scene.boxes["det_rear"]:
            assert any(v[0] <= x1 and v[1] <= y1 and v[2] >= x2 and v[3] >= y2 for v in vehicles)


def test_lane_kinds_are_where_the_lane_markings_are(scenes: list[Scene]) -> None:
    for scene in scenes:
        marked = scene.masks["seg_default"] == LANE
        assert np.array_equal(scene.masks["seg_lane"] > 0, marked)


def test_every_class_appears(scenes: list[Scene]) -> None:
    for task, names in SEGMENTATION_CLASSES.items():
        pixels = sum(np.bincount(scene.masks[task].ravel(), minlength=256) for scene in scenes)
        assert (pixels[: len(names)] > 0).all()
        assert pixels[len(names) :].sum() == 0
    for task, names in DETECTION_CLASSES.items():
        found = Counter(box[4] for scene in scenes for box in scene.boxes[task])
        assert all(found[index] >= 10 for index in range(len(names))), (task, found)


def test_what_is_painted_over_leaves_the_labels() -> None:
    rng = np.random.default_rng(0)
    canvas = Canvas(plan_camera(rng, SMALL))
    behind = canvas.begin(("det_person", 0))
    canvas.polygon(np.array([[10, 10], [29, 10], [29, 49], [10, 49]], np.int32), (9, 9, 9), canvas.add(Surface(8)))
    canvas.end(behind)
    whole = int(canvas.seen(behind).sum())
    canvas.polygon(np.array([[10, 10], [29, 10], [29, 29], [10, 29]], np.int32), (9, 9, 9), canvas.add(Surface(2)))
    assert whole == 20 * 40
    assert int(canvas.seen(behind).sum()) == 20 * 20


def test_the_road_narrows_with_distance() -> None:
    rng = np.random.default_rng(3)
    camera, road = plan_camera(rng, SMALL), plan_road(rng, urban=True)
    outline = strip(camera, road, road.left, road.right, 5.0, 80.0)
    half = len(outline) // 2
    left, right = outline[:half], outline[half:][::-1]
    widths = right[:, 0] - left[:, 0]
    assert (np.diff(widths) < 0).all()


def test_a_tiny_size_is_refused() -> None:
    with pytest.raises(DataError, match="at least 240 x 320"):
        render_scene(0, (32, 32))
