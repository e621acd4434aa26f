"""The class sets of the embedded scenes: names in index order, per task."""

IGNORE = 255

DETECTION_CLASSES: dict[str, tuple[str, ...]] = {
    "det_cyclist_light": ("cyclist", "traffic light"),
    "det_person": ("pedestrian",),
    "det_rear": ("vehicle front", "vehicle rear"),
    "det_vehicle_sign": ("whole vehicle", "traffic sign"),
}

SEGMENTATION_CLASSES: dict[str, tuple[str, ...]] = {
    "seg_default": (
        "road",
        "sidewalk",
        "building",
        "fence",
        "pole",
        "traffic sign and light",
        "vegetation",
        "sky",
        "pedestrian",
        "cyclist",
        "vehicle",
        "lane marking",
    ),
    "seg_lane": ("background", "solid line", "dashed line", "other road marking"),
}

# Indices into seg_default, and into seg_lane.
ROAD, SIDEWALK, BUILDING, FENCE, POLE, SIGN, VEGETATION, SKY, PEDESTRIAN, CYCLIST, VEHICLE, LANE = range(12)
NO_LINE, SOLID_LINE, DASHED_LINE, OTHER_MARKING = range(4)
