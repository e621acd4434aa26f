"""The heads and what follows them, all parties: maps, boxes, their hardware layout and class maps."""

import numpy as np
import pytest

from quant import arith, postprocess
from tests.parity.harness import COMPILED, NUMPY, RELAX
from tests.parity.head_cases import CROWDED
from tests.parity.trial import Trial

DETECTION = ("det_person", "det_vehicle_sign")
RESULTS = [f"{task}.{part}" for task in DETECTION for part in ("boxes", "packed")] + ["seg_default.mask"]


def test_all_parties_agree(heads: Trial) -> None:
    assert heads.first_differences() == []


@pytest.mark.parametrize("party", [NUMPY, RELAX, COMPILED])
def test_boxes_and_masks_were_compared(heads: Trial, party: str) -> None:
    for results in heads.results:
        assert set(RESULTS) <= results[party].keys()


def test_maps_were_tried_hard(heads: Trial) -> None:
    strengths = heads.strengths()
    everywhere, outputs = list(strengths.values()), [strengths[name] for name in heads.parties.output_layers]
    assert sum(everywhere[1:], everywhere[0]).saturated > 0.01
    total = sum(outputs[1:], outputs[0])
    assert min(total.even_ties, total.odd_ties) > 0


def candidates(heads: Trial, task: str) -> np.ndarray:
    """All boxes of the first picture that pass the task's threshold, best first: int64 rows."""
    seen: list[np.ndarray] = []
    real = postprocess.suppress

    def watch(ordered: np.ndarray, attributes: postprocess.DetectionAttributes) -> np.ndarray:
        seen.append(ordered)
        return real(ordered, attributes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postprocess, "suppress", watch)
        heads.parties.numpy(heads.pictures[0], heads.im_hw)
    return seen[DETECTION.index(task)]


@pytest.mark.parametrize("task", DETECTION)
def test_suppression_has_work_to_do(heads: Trial, task: str) -> None:
    found, rows = candidates(heads, task), heads.results[0][NUMPY][f"{task}.boxes"]
    kept = int((rows[:, 5] >= 0).sum())
    assert len(found) > 2 * kept > 10
    assert len(np.unique(found[:, 4])) < len(found), "equal scores occur: their order matters"
    assert (kept == CROWDED["nms_output_bbox_num"]) == (task == "det_vehicle_sign"), "one fills its list, one does not"
    assert heads.im_hw is not None
    height, width = (4 * size for size in heads.im_hw)
    outside = (found[:, :4].min() < 0, (found[:, 2] > width).any(), (found[:, 3] > height).any())
    assert any(outside) == (task == "det_vehicle_sign"), "only the other one clips"


def test_class_maps_hold_ties(heads: Trial) -> None:
    logits = np.stack([result[NUMPY]["seg_default.logits.conv"] for result in heads.results])
    ordered = np.sort(logits, axis=-1)
    assert (ordered[..., -1] == ordered[..., -2]).sum() > 10
    assert len(np.unique(arith.channel_argmax(logits))) > 2
