"""Configs: what the two shipped ones say, and that every error names the file and the key."""

import json
import shutil
from pathlib import Path

import pytest

from configs import ConfigError, load

RESIZE = "configs/4pe_resize/multitask.py"
CROP = "configs/4pe_crop/multitask.py"


@pytest.fixture
def folder(repository: Path, tmp_path: Path) -> Path:
    """A copy of the resize configs that a test may spoil."""
    return Path(shutil.copytree(repository / "configs/4pe_resize", tmp_path / "my configs"))


def edit(file: Path, old: str, new: str) -> None:
    """Replaces a part of the file; adds a line if there is none to replace."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new) if old else f"{text}{new}\n")


def test_resize_has_six_tasks_and_the_default_geometry(repository: Path) -> None:
    config = load(repository / RESIZE)
    assert [task.name for task in config.tasks] == [
        "det_cyclist_light",
        "det_person",
        "det_rear",
        "det_vehicle_sign",
        "seg_default",
        "seg_lane",
    ]
    assert config.input_hw == (448, 960)
    assert config.geometry.name == "940x1824"
    assert [step.mode for step in config.solver] == [
        "kTrainingWithBN",
        "kTrainingWithoutBN",
        "kTrainingWithoutBN",
        "kIntInference",
    ]
    assert [len(task.classes) for task in config.tasks] == [2, 1, 2, 2, 12, 4]


def test_crop_is_resize_without_seg_default_and_smaller_upscale_groups(repository: Path) -> None:
    crop, resize = load(repository / CROP), load(repository / RESIZE)
    assert {task.name for task in resize.tasks} - {task.name for task in crop.tasks} == {"seg_default"}
    assert (crop.common.neck.upscale_group_base, resize.common.neck.upscale_group_base) == (4, 8)
    assert crop.input_hw == (512, 1216)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"cut_left": 32', '"cut_left": 30', r"720x1280: 512x1216 at row 104, column 30 of 720x1280; cut from within"),
        ('"cut_top": 104', '"cut_top": 304', r"720x1280: 512x1216 at row 304, column 32 of 720x1280; cut from within"),
        ('"cut_left": 32', '"pad_right": 8', r"720x1280: the crop variant cuts from the picture as it is; make"),
    ],
)
def test_crops_lie_in_the_middle(repository: Path, tmp_path: Path, old: str, new: str, message: str) -> None:
    folder = Path(shutil.copytree(repository / "configs/4pe_crop", tmp_path / "crop"))
    edit(folder / "utils.py", old, new)
    with pytest.raises(ConfigError, match=rf"multitask\.py: common\.geometries\.{message}"):
        load(folder / "multitask.py")


def test_deployment_is_json_with_four_anchored_maps_per_detection(repository: Path) -> None:
    config = load(repository / RESIZE)
    deployment = json.loads(json.dumps(config.deployment()))
    assert deployment["uses_im_hw"] is True
    assert deployment["input"]["geometry"] == "940x1824"
    person = deployment["tasks"][1]
    assert person["name"] == "det_person"
    assert [len(entry) for entry in person["anchors"]] == [3, 3, 3, 3]
    assert deployment["tasks"][5]["stride"] == 4
    assert len(config.output_names) == 4 * 8 + 2
    assert config.output_names[8:10] == ("det_person.score_s8", "det_person.delta_s8")


def test_tasks_share_the_pictures_that_they_both_name(repository: Path, folder: Path) -> None:
    assert len(load(repository / RESIZE).data_groups("train")) == 1
    more = '[*data["train"], {"kind": "folder", "path": "a", "share": 0.25}]'
    edit(folder / "seg_lane.py", "", f'data = {{**data, "train": {more}}}')
    config = load(folder / "multitask.py")
    assert [(len(group.tasks), group.share) for group in config.data_groups("train")] == [(6, 1.0), (1, 0.25)]
    assert config.data_groups("train")[1].sources[0].path == str(folder / "a")  # type: ignore[union-attr]
    assert [len(group.tasks) for group in config.data_groups("val")] == [6]


def test_a_source_named_twice_comes_up_twice(folder: Path) -> None:
    edit(folder / "seg_lane.py", "", 'data = {split: 2 * list(data[split]) for split in ("train", "val")}')
    groups = load(folder / "multitask.py").data_groups("train")
    assert [(len(group.tasks), len(group.sources)) for group in groups] == [(6, 1), (1, 1)]


def test_one_task_alone_is_one_line(folder: Path) -> None:
    (folder / "person.py").write_text("from .multitask import *\nfrom . import det_person\ntasks = [det_person]\n")
    assert [task.name for task in load(folder / "person.py").tasks] == ["det_person"]


def test_lane_alone_asks_to_delete_im_hw_and_works_then(folder: Path) -> None:
    edit(
        folder / "multitask.py",
        "tasks = [det_cyclist_light, det_person, det_rear, det_vehicle_sign, seg_default, seg_lane]",
        "tasks = [seg_lane]",
    )
    with pytest.raises(ConfigError, match=r"multitask\.py: int_inference_export_input_shape\.im_hw: .*; delete im_hw"):
        load(folder / "multitask.py")
    edit(folder / "multitask.py", ', "im_hw": (1, 2)', "")
    config = load(folder / "multitask.py")
    assert config.deployment()["uses_im_hw"] is False


@pytest.mark.parametrize(
    ("name", "input_hw"), [("940x1824", (448, 960)), ("1080x1920", (512, 960)), ("1080x2280", (512, 1140))]
)
def test_an_export_geometry_is_chosen_by_its_name_or_its_shape(
    folder: Path, name: str, input_hw: tuple[int, int]
) -> None:
    for image in (name, (1, *input_hw, 3)):
        edit(folder / "multitask.py", "", f'int_inference_export_input_shape = {{"image": {image!r}, "im_hw": (1, 2)}}')
        config = load(folder / "multitask.py")
        assert (config.geometry.name, config.input_hw) == (name, input_hw)
        assert config.deployment()["input"]["geometry"] == name


def test_original_spelling_of_the_chunk_size(folder: Path) -> None:
    edit(folder / "utils.py", "shuffle_chunk_size = 256", "shuffle_chunck_size = 17")
    assert load(folder / "multitask.py").common.shuffle_chunk_size == 17


def test_a_config_does_not_change(repository: Path) -> None:
    config = load(repository / RESIZE)
    with pytest.raises(ValueError, match="frozen"):
        config.env.seed = 3  # type: ignore[misc]


def test_loading_twice_reads_the_file_twice(folder: Path) -> None:
    assert load(folder / "multitask.py").common.threads == 2
    edit(folder / "utils.py", "threads = 2\nshuffle", "threads = 3\nshuffle")
    assert load(folder / "multitask.py").common.threads == 3


ERRORS = [
    (
        "multitask.py",
        "env = training.ENV",
        "env = training.ENV\nsolvr = 1",
        r"multitask\.py: solvr: unknown key; did you mean 'solver'",
    ),
    (
        "multitask.py",
        "env = training.ENV",
        'env = {"sed": 1}',
        r"multitask\.py: env\.sed: unknown key; did you mean 'seed'",
    ),
    ("multitask.py", "env = training.ENV", 'env = {"seed": "one"}', r"multitask\.py: env\.seed: .*integer.*'one'"),
    ("multitask.py", "solver = training.SOLVER", "solver = training.SOLVER[:3]", r"multitask\.py: solver.*"),
    ("multitask.py", "solver = training.SOLVER", "pass", r"multitask\.py: solver: missing; add it"),
    (
        "multitask.py",
        "solver = training.SOLVER",
        "solver = [training.SOLVER[1], *training.SOLVER[1:]]",
        r"multitask\.py: solver\.0\.mode: kTrainingWithoutBN is not for step 0; use kFloatTraining or kTrainingWithBN",
    ),
    (
        "multitask.py",
        "solver = training.SOLVER",
        'solver = [{**training.SOLVER[0], "quant_delay": 0.8}, *training.SOLVER[1:]]',
        r"multitask\.py: solver\.0\.quant_delay: with freeze_fraction 0.3 it leaves no iterations .*sum less than 1",
    ),
    (
        "multitask.py",
        "solver = training.SOLVER",
        'solver = [training.SOLVER[0], {**training.SOLVER[1], "quant_delay": 0.1}, *training.SOLVER[2:]]',
        r"multitask\.py: solver\.1\.quant_delay: kTrainingWithoutBN has none; delete it",
    ),
    (
        "multitask.py",
        "training.FUSION_BN_PATTERNS",
        '{1: ["("], 2: ["x"]}',
        r"multitask\.py: fusion_bn_patterns\.1: .*no regular",
    ),
    ("multitask.py", "training.FUSION_BN_PATTERNS", '{1: ["a"]}', r"multitask\.py: fusion_bn_patterns\.2: missing"),
    (
        "multitask.py",
        ', "im_hw": (1, 2)',
        "",
        r"multitask\.py: int_inference_export_input_shape\.im_hw: missing.*add im_hw",
    ),
    (
        "multitask.py",
        '"image": "940x1824"',
        '"image": (1, 448, 961, 3)',
        r"multitask\.py: int_inference_export_input_shape\.image: no geometry.*448x961; name one of '940x1824' \(448",
    ),
    (
        "multitask.py",
        '"image": "940x1824"',
        '"image": "940x1825"',
        r"multitask\.py: int_inference_export_input_shape\.image: no geometry.*'940x1825'; name one of '940x1824'",
    ),
    (
        "utils.py",
        '"name": "1080x1920"',
        '"name": "940x1824"',
        r"multitask\.py: common\.geometries: two geometries have the same name; rename one",
    ),
    (
        "utils.py",
        '"cut_top": 22',
        '"cut_top": 21',
        r"multitask\.py: common\.geometries\.940x1824\.height, width: 448x960, but pyramid_hw .* is 449x960; make",
    ),
    (
        "utils.py",
        '"source_hw": (1080, 1920)',
        '"source_hw": (1084, 1920)',
        r"1080x1920\.pyramid_hw: 540 rows, but \(1084, 1920\) scaled to 960 columns has 542; make the numbers agree",
    ),
    ("utils.py", '"cut_top": 22', '"cut_top": 22, "cut_left": 1', r"940x1824\.cut_left: not 0; delete it"),
    ("multitask.py", "import training", "import trainig", r"multitask\.py: line \d+: ImportError"),
    ("multitask.py", "common = utils", "common = (", r"multitask\.py: line \d+: "),
    ("multitask.py", "common = utils", "common = 1 / 0", r"multitask\.py: line \d+: ZeroDivisionError"),
    ("det_person.py", "", "del data", r"det_person\.py: data: missing; add it"),
    ("det_person.py", "", 'data = {"train": [], "val": []}', r"det_person\.py: data\.train: empty"),
    ("det_person.py", "", 'kind = "detecting"', r"det_person\.py: kind: 'detecting' is no kind"),
    ("det_person.py", "", 'name = "det_rear"', r"det_rear\.py: name: 'det_rear' is already"),
    (
        "det_person.py",
        "",
        'head = {**head, "strides": (8, 16, 32)}',
        r"det_person\.py: head: .*give one per stride",
    ),
    (
        "det_person.py",
        "",
        'head = {**head, "strides": (8, 16, 32, 256)}',
        r"det_person\.py: head\.strides: the network has no map at stride 256",
    ),
    (
        "seg_lane.py",
        "",
        'head = {**head, "stride": 2}',
        r"seg_lane\.py: head\.stride: the network has no map at stride 2",
    ),
    (
        "utils.py",
        '"upscale_group_base": 8',
        '"upscale_group_base": 7',
        r"utils\.py: neck: .*upscale_group_base 7; change one",
    ),
    ("det_person.py", "", 'name = "image"', r"det_person\.py: name: 'image' names a part"),
    (
        "det_person.py",
        "",
        'loss = {**loss, "gamma": "2"}',
        r"det_person\.py: loss\.gamma: .*number.*'2'",
    ),
    (
        "det_person.py",
        "",
        'post_processing = {"nms_output_bbox_num": "100"}',
        r"det_person\.py: post_processing\.nms_output_bbox_num: .*integer.*'100'",
    ),
    ("utils.py", 'default_ctx = "cpu"', 'default_ctx = "gpu"', r"utils\.py: default_ctx: "),
    ("utils.py", "load_threads = 2", "load_threads = 0", r"utils\.py: load_threads: .*greater than or equal to 1"),
    (
        "utils.py",
        "load_threads = 2",
        "loadthreads = 2",
        r"utils\.py: loadthreads: unknown key; did you mean 'load_threads'",
    ),
]


@pytest.mark.parametrize(("name", "old", "new", "message"), ERRORS, ids=[entry[3][:40] for entry in ERRORS])
def test_errors_name_file_and_key(folder: Path, name: str, old: str, new: str, message: str) -> None:
    edit(folder / name, old, new)
    with pytest.raises(ConfigError, match=message):
        load(folder / "multitask.py")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.py: no such config file"):
        load("nowhere.py")


def test_camvid_trains_three_groups_of_sources(repository: Path) -> None:
    config, night = (load(repository / f"configs/camvid/{name}.py") for name in ("multitask", "night"))
    groups = config.data_groups("train")
    assert [(len(group.tasks), group.share) for group in groups] == [(4, 0.75), (5, 0.25), (1, 0.125)]
    assert night.tasks == config.tasks
    assert night.solver[0].epochs > config.solver[0].epochs  # type: ignore[union-attr]
