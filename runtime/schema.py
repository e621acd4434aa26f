"""Types of the manifest's parts, each with `to_json` and a checked `from_json`. Pairs are (h, w) everywhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from runtime.errors import ArtifactError

Role = Literal["head", "boxes", "packed", "mask"]
ROLES = ("head", "boxes", "packed", "mask")
DTYPES = ("int8", "uint8", "int32")
CURE = "build the model again with `python -m compile.build`"
T = TypeVar("T")


class Reader:
    """A JSON object read key by key: errors name the file and the key's path, `finish` refuses keys nobody read."""

    def __init__(self, data: Any, where: str) -> None:
        if not isinstance(data, dict):
            raise ArtifactError(f"{where}: must be a JSON object, is {type(data).__name__}; {CURE}")
        self._data = data
        self._where = where
        self._read: set[str] = set()

    def fail(self, key: str, problem: str) -> ArtifactError:
        """The error to raise about `key`."""
        return ArtifactError(f"{self._where}: {key} {problem}; {CURE}")

    def _get(self, key: str, kind: type[T], meaning: str) -> T:
        if key not in self._data:
            raise self.fail(key, "is missing")
        self._read.add(key)
        value = self._data[key]
        # bool is an int to Python, never to a manifest
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.fail(key, f"must be {meaning}, is {value!r:.60}")
        return value

    def integer(self, key: str, minimum: int | None = None) -> int:
        """An integer, at least `minimum`."""
        value = self._get(key, int, "an integer")
        if minimum is not None and value < minimum:
            raise self.fail(key, f"must be at least {minimum}, is {value}")
        return value

    def optional_integer(self, key: str) -> int | None:
        """An integer or null."""
        if key in self._data and self._data[key] is None:
            self._read.add(key)
            return None
        return self.integer(key)

    def boolean(self, key: str) -> bool:
        """True or false."""
        return self._get(key, bool, "true or false")

    def text(self, key: str, choices: tuple[str, ...] | None = None) -> str:
        """A non-empty string, one of `choices` if given."""
        value = self._get(key, str, "a string")
        if not value:
            raise self.fail(key, "must not be empty")
        if choices is not None and value not in choices:
            raise self.fail(key, f"must be one of {', '.join(choices)}, is '{value}'")
        return value

    def integers(self, key: str, count: int | None = None) -> tuple[int, ...]:
        """A list of integers, exactly `count` of them if given."""
        values = self._get(key, list, "a list of integers")
        if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            raise self.fail(key, f"must be a list of integers, is {values!r:.60}")
        if count is not None and len(values) != count:
            raise self.fail(key, f"must have {count} entries, has {len(values)}")
        return tuple(values)

    def pair(self, key: str) -> tuple[int, int]:
        """Two positive integers, (h, w)."""
        height, width = self.integers(key, 2)
        if min(height, width) < 1:
            raise self.fail(key, f"must be two positive integers, is {[height, width]}")
        return height, width

    def number(self, key: str) -> float:
        """A number; an integer will do."""
        if isinstance(self._data.get(key), int):
            return float(self.integer(key))
        return self._get(key, float, "a number")

    def floats(self, key: str, count: int) -> tuple[float, ...]:
        """A list of exactly `count` numbers."""
        values = self._get(key, list, "a list of numbers")
        if len(values) != count or not all(isinstance(value, int | float) for value in values):
            raise self.fail(key, f"must be a list of {count} numbers")
        return tuple(float(value) for value in values)

    def anchors(self, key: str, strides: tuple[int, ...]) -> tuple[tuple[tuple[float, float], ...], ...]:
        """Per stride the (h, w) of the anchors of one cell, in pixels of the network input."""
        levels = self._get(key, list, "a list of anchor sizes per stride")
        if len(levels) != len(strides):
            raise self.fail(key, f"must have one list for each of the {len(strides)} strides, has {len(levels)}")
        try:
            return tuple(tuple((float(height), float(width)) for height, width in level) for level in levels)
        except (TypeError, ValueError):
            raise self.fail(key, "must hold pairs [h, w]") from None

    def child(self, key: str) -> "Reader":
        """The JSON object under `key`."""
        return Reader(self._get(key, dict, "a JSON object"), f"{self._where}: {key}")

    def children(self, key: str) -> list["Reader"]:
        """The JSON objects of the list under `key`."""
        values = self._get(key, list, "a list")
        return [Reader(value, f"{self._where}: {key}[{index}]") for index, value in enumerate(values)]

    def mapping(self) -> Mapping[str, Any]:
        """The whole object as it is: for parts whose content this room only passes on."""
        return dict(self._data)

    def finish(self) -> None:
        """Refuses keys that nobody has read: they come from another version, and ignoring them could mislead."""
        unknown = sorted(set(self._data) - self._read)
        if unknown:
            raise self.fail(unknown[0], "is not a key this runtime knows")


@dataclass(frozen=True)
class InputGeometry:
    """From the source picture to the network input.

    resize: the picture is scaled so that its width becomes `pyramid_hw[1]`, that of `source_hw` to `pyramid_hw`,
    then `cut_top` rows are cut and `pad_right` columns of pixel 128 added, which gives (height, width).
    crop: no scaling, `pyramid_hw` equals `source_hw`; `height` rows from `cut_top` on, of the middle `width` columns,
    which begin at `cut_left`.
    """

    geometry: str
    source_hw: tuple[int, int]
    pyramid_hw: tuple[int, int]
    cut_top: int
    cut_left: int
    pad_right: int
    height: int
    width: int
    variant: Literal["resize", "crop"]

    def to_json(self) -> dict[str, Any]:
        """JSON-able dictionary."""
        return {
            "geometry": self.geometry,
            "source_hw": list(self.source_hw),
            "pyramid_hw": list(self.pyramid_hw),
            "cut_top": self.cut_top,
            "cut_left": self.cut_left,
            "pad_right": self.pad_right,
            "height": self.height,
            "width": self.width,
            "variant": self.variant,
        }

    @classmethod
    def from_json(cls, reader: Reader) -> "InputGeometry":
        """Reads and checks that the numbers fit each other."""
        geometry = cls(
            geometry=reader.text("geometry"),
            source_hw=reader.pair("source_hw"),
            pyramid_hw=reader.pair("pyramid_hw"),
            cut_top=reader.integer("cut_top", 0),
            cut_left=reader.integer("cut_left", 0),
            pad_right=reader.integer("pad_right", 0),
            height=reader.integer("height", 1),
            width=reader.integer("width", 1),
            variant=cast(Literal["resize", "crop"], reader.text("variant", ("resize", "crop"))),
        )
        reader.finish()
        rows, columns = geometry.pyramid_hw
        if geometry.variant == "resize":
            if (rows - geometry.cut_top, columns + geometry.pad_right) != (geometry.height, geometry.width):
                raise reader.fail("height, width", "must be pyramid_hw less cut_top rows and more pad_right columns")
            if geometry.cut_left:
                raise reader.fail("cut_left", "must be 0: the resize variant keeps every column")
        elif geometry.pad_right or geometry.pyramid_hw != geometry.source_hw:
            raise reader.fail("variant", "is crop: pyramid_hw must equal source_hw and pad_right be 0")
        elif geometry.cut_top + geometry.height > rows or geometry.cut_left != (columns - geometry.width) // 2:
            raise reader.fail("height, width", "must be cut from within source_hw, from its middle columns")
        return geometry


@dataclass(frozen=True)
class ClassEntry:
    """A class: its name and the RGB colour it is drawn in."""

    name: str
    color: tuple[int, int, int]

    def to_json(self) -> dict[str, Any]:
        """JSON-able dictionary."""
        return {"name": self.name, "color": list(self.color)}

    @classmethod
    def from_json(cls, reader: Reader) -> "ClassEntry":
        """Reads and checks."""
        name = reader.text("name")
        red, green, blue = reader.integers("color", 3)
        if not all(0 <= channel <= 255 for channel in (red, green, blue)):
            raise reader.fail("color", "must be three integers in 0..255")
        reader.finish()
        return cls(name, (red, green, blue))


@dataclass(frozen=True)
class DetectionTask:
    """A detection task: the config's deployment entry and three keys of the build.

    `sigmoid_table[q + 128]` is the score in 0..1 of the int8 score q, which has shift `score_shift`; the model drops
    boxes whose int8 score is below `box_filter_threshold`, which stands for `score_threshold`.
    """

    name: str
    classes: tuple[ClassEntry, ...]
    strides: tuple[int, ...]
    anchors: tuple[tuple[tuple[float, float], ...], ...]
    score_threshold: float
    box_filter_threshold: int
    nms_threshold: int
    nms_margin: int
    nms_output_bbox_num: int
    use_clipping: bool
    score_shift: int
    sigmoid_table: tuple[float, ...]
    kind: Literal["detection"] = "detection"

    def to_json(self) -> dict[str, Any]:
        """JSON-able dictionary."""
        return {
            "name": self.name,
            "kind": self.kind,
            "classes": [entry.to_json() for entry in self.classes],
            "strides": list(self.strides),
            "anchors": [[list(size) for size in level] for level in self.anchors],
            "score_threshold": self.score_threshold,
            "box_filter_threshold": self.box_filter_threshold,
            "nms_threshold": self.nms_threshold,
            "nms_margin": self.nms_margin,
            "nms_output_bbox_num": self.nms_output_bbox_num,
            "use_clipping": self.use_clipping,
            "score_shift": self.score_shift,
            "sigmoid_table": list(self.sigmoid_table),
        }


@dataclass(frozen=True)
class SegmentationTask:
    """A segmentation task: its mask holds indices into `classes`, one per `stride` x `stride` pixels of the input."""

    name: str
    classes: tuple[ClassEntry, ...]
    stride: int
    kind: Literal["segmentation"] = "segmentation"

    def to_json(self) -> dict[str, Any]:
        """JSON-able dictionary."""
        return {
            "name": self.name,
            "kind": self.kind,
            "classes": [entry.to_json() for entry in self.classes],
            "stride": self.stride,
        }


Task = DetectionTask | SegmentationTask


def read_task(reader: Reader) -> Task:
    """Reads the task that the key `kind` announces."""
    kind = reader.text("kind", ("detection", "segmentation"))
    name = reader.text("name")
    classes = tuple(ClassEntry.from_json(child) for child in reader.children("classes"))
    if not classes:
        raise reader.fail("classes", "must not be empty")
    task: Task
    if kind == "segmentation":
        task = SegmentationTask(name, classes, stride=reader.integer("stride", 1))
    else:
        strides = reader.integers("strides")
        task = DetectionTask(
            name,
            classes,
            strides=strides,
            anchors=reader.anchors("anchors", strides),
            score_threshold=reader.number("score_threshold"),
            box_filter_threshold=reader.integer("box_filter_threshold"),
            nms_threshold=reader.integer("nms_threshold"),
            nms_margin=reader.integer("nms_margin"),
            nms_output_bbox_num=reader.integer("nms_output_bbox_num", 1),
            use_clipping=reader.boolean("use_clipping"),
            score_shift=reader.integer("score_shift"),
            sigmoid_table=reader.floats("sigmoid_table", 256),
        )
    reader.finish()
    return task


@dataclass(frozen=True)
class Output:
    """One tensor of the tuple that `main` returns. `shift` is that of an int8 head map, null elsewhere."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    shift: int | None
    role: Role
    task: str

    def to_json(self) -> dict[str, Any]:
        """JSON-able dictionary."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "shift": self.shift,
            "role": self.role,
            "task": self.task,
        }

    @classmethod
    def from_json(cls, reader: Reader) -> "Output":
        """Reads and checks."""
        output = cls(
            name=reader.text("name"),
            shape=reader.integers("shape"),
            dtype=reader.text("dtype", DTYPES),
            shift=reader.optional_integer("shift"),
            role=cast(Role, reader.text("role", ROLES)),
            task=reader.text("task"),
        )
        if (output.shift is not None) != (output.role == "head"):
            raise reader.fail("shift", f"of '{output.name}' must be an integer for a head and null for the rest")
        reader.finish()
        return output
