"""Classes of the six tasks, in the order of their channels, with the colours (RGB) of overlays and masks."""

CYCLIST_LIGHT = [
    {"name": "cyclist", "color": (255, 121, 63)},
    {"name": "traffic light", "color": (250, 204, 21)},
]
PERSON = [{"name": "pedestrian", "color": (236, 28, 86)}]
REAR = [
    {"name": "vehicle front", "color": (56, 189, 248)},
    {"name": "vehicle rear", "color": (99, 102, 241)},
]
VEHICLE_SIGN = [
    {"name": "whole vehicle", "color": (34, 197, 94)},
    {"name": "traffic sign", "color": (217, 70, 239)},
]
SCENE = [
    {"name": "road", "color": (128, 64, 128)},
    {"name": "sidewalk", "color": (244, 35, 232)},
    {"name": "building", "color": (70, 70, 70)},
    {"name": "fence", "color": (190, 153, 153)},
    {"name": "pole", "color": (153, 153, 153)},
    {"name": "traffic sign and light", "color": (250, 170, 30)},
    {"name": "vegetation", "color": (107, 142, 35)},
    {"name": "sky", "color": (70, 130, 180)},
    {"name": "pedestrian", "color": (220, 20, 60)},
    {"name": "cyclist", "color": (255, 100, 0)},
    {"name": "vehicle", "color": (0, 0, 142)},
    {"name": "lane marking", "color": (255, 255, 255)},
]
LANE = [
    {"name": "background", "color": (0, 0, 0)},
    {"name": "solid line", "color": (255, 77, 77)},
    {"name": "dashed line", "color": (77, 166, 255)},
    {"name": "other road marking", "color": (255, 214, 51)},
]
