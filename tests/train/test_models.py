"""The network: its size, its names, odd picture sizes, and equality of torch, numpy and ONNX Runtime on a small one."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from configs import load
from configs.schema import Config
from quant import arith
from quant.fake import ActivationQuantizer, ElementwiseAdd, QuantConv2d, Quantized, use_exact_convolutions
from quant.params import quantize_bias, quantize_weight
from train.export import export_onnx
from train.models.blocks import SeparableGroupConv, VarGBlock
from train.models.heads import AnchorDetectionHead, PixelClassHead
from train.models.multitask import MultiTaskNetwork
from train.steps import Export, snap

LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")
Snapped = tuple[Export, MultiTaskNetwork, torch.Tensor]
HW = (80, 104)  # neither is a multiple of 64: every kind of crop occurs


@pytest.fixture(scope="module")
def config(repository: Path) -> Config:
    return load(repository / "configs/4pe_resize/multitask.py")


@pytest.fixture(scope="module")
def network(config: Config) -> MultiTaskNetwork:
    torch.manual_seed(0)
    return MultiTaskNetwork(config).eval()


def multiply_adds(network: MultiTaskNetwork, hw: tuple[int, int]) -> tuple[dict[str, int], dict[str, torch.Tensor]]:
    """Of every convolution by its name, for a picture of this size; and the outputs."""
    macs: dict[str, int] = {}

    def count(unit: nn.Module, inputs: object, output: object) -> None:
        assert isinstance(unit, QuantConv2d)
        assert unit.name not in macs
        macs[unit.name] = unit.conv.weight.numel() * output.value[0, 0].numel()  # type: ignore[attr-defined]

    hooks = [unit.register_forward_hook(count) for unit in network.modules() if isinstance(unit, QuantConv2d)]
    with torch.no_grad():
        outputs = network(torch.zeros(1, 3, *hw))
    for hook in hooks:
        hook.remove()
    return macs, outputs


def test_size_is_that_of_the_design_with_the_shared_part_once(network: MultiTaskNetwork, config: Config) -> None:
    macs, outputs = multiply_adds(network, config.input_hw)
    assert 2.4e9 < sum(macs.values()) < 3.2e9
    assert 1.4e6 < sum(parameter.numel() for parameter in network.parameters()) < 2.2e6
    assert sum(name.endswith("stem") for name in macs) == 1
    assert tuple(outputs) == config.output_names
    assert sum(value.numel() for value in outputs.values()) == 1_045_905
    assert outputs["det_person.score_s8"].shape == (1, 3, 56, 120)
    assert outputs["det_rear.score_s64"].shape == (1, 6, 7, 15)
    assert outputs["det_rear.delta_s64"].shape == (1, 12, 7, 15)
    assert outputs["seg_default.logits"].shape == (1, 12, 112, 240)


def test_names_begin_with_the_part(network: MultiTaskNetwork, config: Config) -> None:
    parts = {name.split(".")[0] for name, _ in network.named_parameters()}
    assert parts == {"backbone", "neck", *(task.name for task in config.tasks)}
    assert len(network.state_dict()) == len({value.data_ptr() for value in network.state_dict().values()})


def test_tasks_asked_for_are_the_ones_computed(network: MultiTaskNetwork, config: Config) -> None:
    with torch.no_grad():
        outputs = network(torch.zeros(1, 3, 64, 64), {"seg_lane": [0], "det_person": [0]})
    assert tuple(outputs) == (*config.task("det_person").output_names, "seg_lane.logits")


def test_sizes_need_no_multiple_of_the_stride(network: MultiTaskNetwork) -> None:
    with torch.no_grad():
        outputs = network(torch.zeros(1, 3, 128, 285), {"seg_lane": [0], "det_person": [0]})
    assert outputs["seg_lane.logits"].shape[2:] == (32, 72)
    assert [outputs[f"det_person.score_s{s}"].shape[3] for s in (8, 16, 32, 64)] == [36, 18, 9, 5]


def test_crop_variant_has_smaller_groups_in_the_neck_alone(repository: Path, network: MultiTaskNetwork) -> None:
    crop = MultiTaskNetwork(load(repository / "configs/4pe_crop/multitask.py"))
    shapes, others = ({name: value.shape for name, value in entry.state_dict().items()} for entry in (crop, network))
    assert {name.split(".")[0] for name in shapes if shapes[name] != others[name]} == {"neck"}


def test_crop_and_resize_together_compute_less_than_one_network_on_the_full_picture(
    repository: Path, network: MultiTaskNetwork, config: Config
) -> None:
    """On a picture of the default geometry, whichever window of it crop is shown; and on one of every size that crop
    has a window for, of which resize sees the half.
    """

    def total(network: MultiTaskNetwork, hw: tuple[int, int]) -> int:
        return sum(multiply_adds(network, hw)[0].values())

    crop = load(repository / "configs/4pe_crop/multitask.py")
    far_network = MultiTaskNetwork(crop).eval()
    full, near = total(network, config.geometry.source_hw), total(network, config.input_hw)
    far = {entry.source_hw: total(far_network, (entry.height, entry.width)) for entry in crop.common.geometries}
    assert near < min(far.values())
    assert max(far.values()) + near < 0.7 * full
    for (height, width), of_window in far.items():
        assert total(network, (height // 2, width // 2)) + of_window < total(network, (height, width))


def test_random_weights_give_outputs_that_are_alive(network: MultiTaskNetwork) -> None:
    torch.manual_seed(1)
    image = torch.randint(-128, 128, (2, 3, 128, 192)) / 128
    network.train()
    with torch.no_grad():
        for _ in range(2):
            network(image)
        network.eval()
        outputs = network(image)
    shifts = network.output_shifts()
    for name, value in outputs.items():
        assert (value * 2.0 ** shifts[name]).std() > 1, name


@pytest.fixture(scope="module")
def small(config: Config) -> Config:
    common = config.common
    backbone = common.backbone.model_copy(
        update={"channels": (8, 16, 16, 16, 16), "blocks": (1, 1, 2, 1), "extended": ((16, 1),)}
    )
    neck = common.neck.model_copy(update={"channels": (8, 16, 16, 16, 16)})
    tasks = []
    for name in ("det_person", "seg_lane"):
        task = config.task(name)
        tasks.append(task.model_copy(update={"head": task.head.model_copy(update={"channels": 16})}))
    return config.model_copy(
        update={"common": common.model_copy(update={"backbone": backbone, "neck": neck}), "tasks": tuple(tasks)}
    )


@pytest.fixture(scope="module", params=[0, 2], ids=["observed", "saturating"])
def snapped(small: Config, request: pytest.FixtureRequest) -> Snapped:
    """A folded, frozen, snapped network with random weights; "saturating": all its scales too fine by two bits."""
    use_exact_convolutions()
    torch.manual_seed(request.param)
    network = MultiTaskNetwork(small).train()
    image = torch.randint(-128, 128, (1, 3, *HW)) / 128
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(".score.conv.bias"):  # a prior of 1 % would saturate everywhere
                parameter.normal_()
        for _ in range(2):
            network(image)
        for module in network.modules():
            if isinstance(module, QuantConv2d):
                module.absorb_batch_norm()
        network(image)
        for module in network.modules():
            if isinstance(module, ActivationQuantizer):
                module.shift.add_(request.param).clamp_(max=12)
                module.frozen.fill_(True)
        network.eval()
        before = network(image)
        snap(network)
        export = Export(network, small.output_names)
        for name, value in zip(small.output_names, export(image), strict=True):
            assert torch.equal(value, before[name]), "snapping changed the values"
    return export, network, image


def test_torch_is_numpy(snapped: Snapped, small: Config) -> None:
    export, network, image = snapped
    pixels = (image.numpy() * 128 + 128).astype(np.uint8).transpose(0, 2, 3, 1)
    expected = integer_network(network, pixels)
    shifts = network.output_shifts()
    with torch.no_grad():
        for name, value in zip(small.output_names, export(image), strict=True):
            found = value.numpy().transpose(0, 2, 3, 1) * 2.0 ** shifts[name]
            assert np.array_equal(found, expected[name]), name
            assert len(np.unique(found)) > 3, f"{name} is nearly constant"


def test_onnx_runtime_is_torch_at_every_level(snapped: Snapped, small: Config, tmp_path: Path) -> None:
    export, _, image = snapped
    path = tmp_path / "network.onnx"
    assert export_onnx(export, HW, small.output_names, path)
    with torch.no_grad():
        expected = [value.numpy() for value in export(image)]
    for level in LEVELS:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for name, own, other in zip(
            small.output_names, expected, session.run(None, {"image": image.numpy()}), strict=True
        ):
            assert np.array_equal(own, other), f"{name} at {level}"


def test_export_has_the_agreed_form(snapped: Snapped, small: Config, tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    export_onnx(snapped[0], HW, small.output_names, path)
    graph = onnx.load(path).graph
    kinds = {node.op_type for node in graph.node}
    assert kinds == {"Constant", "Conv", "Relu", "Add", "Resize", "Slice", "QuantizeLinear", "DequantizeLinear"}
    readers = {name: node for node in graph.node for name in node.input}
    writers = {name: node for node in graph.node for name in node.output}
    names = {entry.name for entry in graph.initializer}
    assert readers["image"].op_type == "QuantizeLinear"
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        x, weight, bias = node.input
        assert writers[x].op_type in ("DequantizeLinear", "Resize", "Slice")
        quantize = writers[writers[weight].input[0]]
        assert (writers[weight].op_type, quantize.op_type) == ("DequantizeLinear", "QuantizeLinear")
        assert quantize.input[0].endswith(".conv.weight")
        assert bias == quantize.input[0].replace("weight", "bias")
        assert {quantize.input[0], bias} <= names
    assert all(writers[output.name].op_type == "DequantizeLinear" for output in graph.output)


class Value(NamedTuple):
    q: np.ndarray
    shift: int


def integer_network(network: MultiTaskNetwork, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """uint8 (1, H, W, 3) to the outputs, int8 NHWC, by `quant.arith` alone."""
    x = integer_conv(network.backbone.stem, Value(arith.quantize_pixels(pixels), 7))
    maps = []
    for stage in network.backbone.stages:
        for block in stage:
            x = integer_block(block, x)
        maps.append(x)
    neck = network.neck
    laterals = [integer_conv(unit, value) for unit, value in zip(neck.laterals, maps, strict=True)]
    results = [laterals[-1]]
    for level in reversed(range(len(maps) - 1)):
        fine = laterals[level]
        coarse = integer_separable(neck.reductions[level], results[0])
        upsampled = Value(arith.upsample2x(coarse.q, fine.q.shape[1:3]), coarse.shift)
        results.insert(0, integer_block(neck.blocks[level], integer_add(neck.sums[level], upsampled, fine)))
    outputs = {}
    for name, model in network.models.items():
        by_stride = dict(zip(model.strides, results, strict=True))
        head = model.head
        if isinstance(head, PixelClassHead):
            features = integer_separable(head.features, by_stride[head.stride])
            outputs[f"{name}.logits"] = integer_conv(head.logits, features, head.quantizer).q
        elif isinstance(head, AnchorDetectionHead):
            for key, branch in head.branches.items():
                features = integer_separable(branch.features, by_stride[int(key[1:])])
                outputs[f"{name}.score_{key}"] = integer_conv(branch.score, features, head.score_quantizer).q
                outputs[f"{name}.delta_{key}"] = integer_conv(branch.delta, features, head.delta_quantizer).q
    return outputs


def integer_block(block: VarGBlock, x: Value) -> Value:
    shortcut = x if block.shortcut is None else integer_separable(block.shortcut, x)
    inner = integer_separable(block.first, x)
    if block.twin is not None and block.merge is not None:
        inner = integer_add(block.merge, inner, integer_separable(block.twin, x))
    return integer_separable(block.second, inner, shortcut)


def integer_separable(pair: SeparableGroupConv, x: Value, residual: Value | None = None) -> Value:
    return integer_conv(pair.pointwise, integer_conv(pair.grouped, x), residual=residual)


def integer_add(add: ElementwiseAdd, a: Value, b: Value) -> Value:
    shift = int(add.quantizer.shift)
    return Value(arith.add_layer(a.q, a.shift, b.q, b.shift, relu=add.relu, out_shift=shift), shift)


def integer_conv(
    unit: QuantConv2d, x: Value, quantizer: ActivationQuantizer | None = None, *, residual: Value | None = None
) -> Value:
    quantizer = quantizer or unit.quantizer
    assert quantizer is not None
    assert unit.conv.bias is not None
    shift, out_shift = unit.weight_shift.numpy(), int(quantizer.shift)
    q = arith.conv_layer(
        x.q,
        x.shift,
        quantize_weight(unit.conv.weight.detach().numpy().transpose(0, 2, 3, 1), shift),
        shift,
        quantize_bias(unit.conv.bias.detach().numpy(), shift + x.shift),
        stride=unit.conv.stride[0],
        padding=unit.conv.kernel_size[0] // 2,
        groups=unit.conv.groups,
        relu=unit.relu,
        out_shift=out_shift,
        residual=None if residual is None else residual.q,
        residual_shift=None if residual is None else residual.shift,
    )
    return Value(q, out_shift)


def in_float(config: Config) -> MultiTaskNetwork:
    torch.manual_seed(0)
    network = MultiTaskNetwork(config)
    for module in network.modules():
        if isinstance(module, Quantized):
            module.quantized = False
    return network


def test_a_new_network_does_not_amplify_errors(config: Config) -> None:
    """Else calibrated int8 is noise until the network has learned: errors then grow a hundredfold in power."""
    network = in_float(config).train()
    image = torch.randint(-128, 128, (2, 3, 128, 192)) / 128
    noise = 0.01 * torch.randn_like(image)
    with torch.no_grad():
        clean, noisy = network(image), network(image + noise)
    share = (noise.var() / image.var()).item()
    for name, value in clean.items():
        varies = (value - value.mean(dim=(0, 2, 3), keepdim=True)).square().mean()
        assert ((noisy[name] - value).square().mean() / varies).item() < 4 * share, name


def test_float_mode_quantizes_nothing(small: Config) -> None:
    network = in_float(small).eval()
    with torch.no_grad():
        values = network(torch.randn(1, 3, 64, 64))["seg_lane.logits"]
    assert len(torch.unique(values)) > values.numel() // 2


def test_what_detections_are_made_of_does_not_saturate(config: Config) -> None:
    """Rare and large as it is, the least squared error would let it."""
    torch.manual_seed(0)
    heads = [head for head in MultiTaskNetwork(config).train().modules() if isinstance(head, AnchorDetectionHead)]
    value = torch.rand(1, 4, 32, 32)
    value[0, 0, 0, 0] = 1.15
    branches = [branch for head in heads for branch in head.branches.children()]
    assert len(branches) == 16
    for branch in branches:
        quantizer = branch.features.pointwise.quantizer
        assert quantizer(value.clone(), relu=True).value.max() == pytest.approx(1.15, abs=2.0**-7)
