"""Folding against the unfolded graph in ONNX Runtime.

Folding is float arithmetic: the two sides round differently, so they are close, not equal. A convolution of n products
in float32 is off by at most n + 1 roundings of the sum of magnitudes, a batch norm by a few more, on either side; the
bound below is that and nothing on top. A forgotten epsilon, mean or bias is thousands of times larger. Parity proper
starts where the rounding to grids does, with step 2.
"""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import tvm
from tvm import relax

from compile.errors import CompileError
from compile.files import Parameters
from compile.importer import import_onnx
from compile.onnx_writer import to_onnx
from compile.passes.fold_batch_norm import FoldBatchNorm, batch_norm_names
from compile.pipeline import folding_passes, run_passes
from tests.compile.models import ModelBuilder, float_image, random_picture, run_onnx
from tests.compile.toy import ALL, OF_HEADS, toy_network

HW = (12, 14)
Make = Callable[[ModelBuilder], str]


def folded(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Parameters, int]:
    """The model behind FoldBatchNorm, its parameters, the count of what was folded."""
    imported = import_onnx(model)
    parameters = dict(imported.parameters)
    fold = FoldBatchNorm(parameters)
    module = run_passes(imported.module, folding_passes(fold), None)
    return to_onnx(module, parameters, imported.output_names), parameters, fold.folded


def builder(quantized: bool = False) -> ModelBuilder:
    return ModelBuilder(HW, seed=4, quantized=quantized, batch_norms="c")


def plain(b: ModelBuilder) -> str:
    return b.conv("c", b.image(), 5, bias=False)


def with_bias(b: ModelBuilder) -> str:
    return b.conv("c", b.image(), 5)


def grouped(b: ModelBuilder) -> str:
    return b.conv("c", b.image(), 9, groups=3, stride=2)


def pointwise(b: ModelBuilder) -> str:
    return b.conv("c", b.image(), 8, kernel=1, bias=False)


def foreign_bias_name(b: ModelBuilder) -> str:
    """The folded bias has to go where the convolution reads it."""
    output = b.conv("c", b.image(), 5)
    b.parameters["offsets"] = b.parameters.pop("c.conv.bias")
    (node,) = (node for node in b.nodes if node.op_type == "Conv")
    node.input[2] = "offsets"
    return output


@pytest.mark.parametrize("quantized", [False, True], ids=["float weight", "Q/DQ weight"])
@pytest.mark.parametrize("make", [plain, with_bias, grouped, pointwise, foreign_bias_name])
def test_equals_the_unfolded_graph(make: Make, quantized: bool) -> None:
    b = builder(quantized)
    model = b.finish({"out": make(b)})
    result, parameters, count = folded(model)
    assert count == 1
    assert not [node for node in result.graph.node if node.op_type == "BatchNormalization"]
    weight = parameters["c.conv.weight"].astype(np.float64)
    bias = next(value for name, value in parameters.items() if value.ndim == 1)
    gamma, variance, mean = (b.parameters[f"c.bn.{part}"] for part in ("weight", "running_var", "running_mean"))
    terms = [np.abs(weight).sum(axis=(1, 2, 3)), np.abs(bias), np.abs(mean * gamma / np.sqrt(variance))]
    roundings = 2 * (weight[0].size + 8)
    bound = roundings * 2.0**-24 * (sum(terms) + 3)  # 3: beta and the conv's own bias, which the other side adds apart
    for seed in range(3):
        picture = random_picture(HW, seed)
        assert np.abs(float_image(picture)).max() <= 1
        difference = np.abs(run_onnx(result, picture)["out"] - run_onnx(model, picture)["out"])
        assert (difference.max(axis=(0, 2, 3)) <= bound).all()
    assert bound.max() < 1e-4


def test_a_forgotten_term_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from compile.passes import fold_batch_norm as room

    real = room.fold_batch_norm
    for spoil in (
        lambda w, b, g, beta, mean, var, eps: real(w, b, g, beta, mean, var, 0.0),
        lambda w, b, g, beta, mean, var, eps: real(w, None, g, beta, mean, var, eps),
        lambda w, b, g, beta, mean, var, eps: real(w, b, g, beta, 0 * mean, var, eps),
    ):
        monkeypatch.setattr(room, "fold_batch_norm", spoil)
        with pytest.raises(AssertionError):
            test_equals_the_unfolded_graph(with_bias, False)


@pytest.mark.parametrize(
    ("batch_norms", "quantized"), [(ALL, False), (ALL, True), (OF_HEADS, True)], ids=["float", "step 0", "step 1"]
)
def test_a_whole_network_keeps_no_batch_norm(batch_norms: str, quantized: bool) -> None:
    model = toy_network(quantized=quantized, batch_norms=batch_norms)
    names = [node.input[1].removesuffix(".weight") for node in model.graph.node if node.op_type == "BatchNormalization"]
    assert sorted(batch_norm_names(import_onnx(model).module)) == sorted(names)
    result, parameters, count = folded(model)
    assert count == len(names) > 2
    assert not [node for node in result.graph.node if node.op_type == "BatchNormalization"]
    assert not [name for name in parameters if ".bn." in name]
    for name in names:
        assert f"{name.removesuffix('.bn')}.conv.bias" in parameters
    if not quantized:
        biased = {node.input[1] for node in result.graph.node if node.op_type == "Conv" and len(node.input) == 3}
        assert {f"{name.removesuffix('.bn')}.conv.weight" for name in names} <= biased


def test_a_folded_weight_loses_its_old_scale() -> None:
    b = builder(quantized=True)
    model = b.finish({"out": with_bias(b)})
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) == 2
    assert sum(node.op_type == "QuantizeLinear" for node in folded(model)[0].graph.node) == 1, "the picture's is left"


def behind_relu(b: ModelBuilder) -> str:
    hidden = ModelBuilder.unit(b, "first", b.image(), 4, relu=True, shift=4)
    return b.batch_norm("late", hidden)


def read_twice(b: ModelBuilder) -> str:
    b.batch_norms = builder().batch_norms
    conv = b.conv("shared", b.image(), 4)
    return b.node("Add", [b.batch_norm("late", conv), b.node("Relu", [conv], "other")], "sum")


def also_an_output(b: ModelBuilder) -> str:
    return b.batch_norm("late", b.conv("seen", b.image(), 4))


def shared_weight(b: ModelBuilder) -> str:
    one = b.batch_norm("one", b.conv("shared", b.image(), 3))
    b.copy = "/second"
    return b.batch_norm("other", b.conv("shared", one, 3))


def negative_variance(b: ModelBuilder) -> str:
    output = b.batch_norm("late", b.conv("first", b.image(), 4))
    b.parameters["late.bn.running_var"][1] = -0.5
    return output


def shared_weight_of_a_bare_one(b: ModelBuilder) -> str:
    """One of the two has no batch norm: its weight must stay as it is."""
    one = b.conv("shared", b.image(), 3)
    b.copy = "/second"
    return b.batch_norm("other", b.conv("shared", one, 3))


def first_of_all(b: ModelBuilder) -> str:
    return b.conv("first", b.batch_norm("late", b.image()), 4)


def one_norm_twice(b: ModelBuilder) -> str:
    one = b.batch_norm("late", b.node("Relu", [b.conv("first", b.image(), 4)], "first"))
    b.copy = "/second"
    return b.batch_norm("late", b.node("Relu", [one], "second"))


@pytest.mark.parametrize(
    ("make", "norms"),
    [
        (behind_relu, 1),
        (read_twice, 1),
        (also_an_output, 1),
        (shared_weight, 2),
        (shared_weight_of_a_bare_one, 1),
        (first_of_all, 1),
        (one_norm_twice, 2),
    ],
)
def test_wherever_it_stands(make: Make, norms: int) -> None:
    """No convolution of its own before it, or one that shares its weight: the graph computes what it did."""
    b = ModelBuilder(HW, quantized=False)
    outputs = {"out": make(b)}
    if make is also_an_output:
        outputs["bare"] = "/seen/Conv_output_0"
    model = b.finish(outputs)
    result, _, count = folded(model)
    assert count == norms
    assert not [node for node in result.graph.node if node.op_type == "BatchNormalization"]
    for seed in range(3):
        picture = random_picture(HW, seed)
        before, after = run_onnx(model, picture), run_onnx(result, picture)
        for name in outputs:
            # each side rounds some forty products of a magnitude under 16 and what is behind them
            assert np.abs(after[name] - before[name]).max() < 200 * 16 * 2.0**-24
            assert np.ptp(after[name]) > 1


@pytest.mark.parametrize("bare", [False, True], ids=["behind a convolution", "alone"])
@pytest.mark.parametrize(("layout", "kernel_layout"), [("NCHW", "OIHW"), ("NHWC", "HWIO"), ("NHWC", "OHWI")])
def test_either_layout(layout: str, kernel_layout: str, bare: bool) -> None:
    """In Relax itself, for ONNX knows one layout only; TVM runs both sides."""
    rng = np.random.default_rng(5)
    sizes = {"N": 1, "C": 6, "H": 7, "W": 5}
    kernel = {"O": 6, "I": 6, "H": 3, "W": 3}
    axis = layout.index("C")
    parameters = {"c.weight": rng.standard_normal([kernel[part] for part in kernel_layout])}
    for part in ("weight", "bias", "running_mean", "running_var"):
        parameters[f"c.bn.{part}"] = rng.uniform(0.5, 1.5, 6)
    parameters = {name: value.astype(np.float32) for name, value in parameters.items()}
    variables = {name: relax.Var(name, relax.TensorType(value.shape, "float32")) for name, value in parameters.items()}
    image = relax.Var("image", relax.TensorType(tuple(sizes[part] for part in layout), "float32"))
    build = relax.BlockBuilder()
    with build.function("main", [image, *variables.values()], attrs={"num_input": 1}):
        with build.dataflow():
            x: relax.Expr = image
            if not bare:
                layouts = {"data_layout": layout, "kernel_layout": kernel_layout}
                x = build.emit(relax.op.nn.conv2d(x, variables["c.weight"], padding=1, **layouts))
            statistics = [variables[f"c.bn.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
            normed = build.emit(relax.op.nn.batch_norm(x, *statistics, axis=axis, epsilon=1e-3, training=False))
            output = build.emit_output(relax.Tuple([build.emit(relax.TupleGetItem(normed, 0))]))
        build.emit_func_output(output)
    before, fold_parameters = build.get(), dict(parameters)
    after = FoldBatchNorm(fold_parameters)(before)
    picture = rng.standard_normal([sizes[part] for part in layout]).astype(np.float32)
    results = [run_relax(module, picture, of) for module, of in ((before, parameters), (after, fold_parameters))]
    assert np.abs(results[0] - results[1]).max() < 1e-5
    assert "batch_norm" not in str(after)


def run_relax(module: tvm.IRModule, picture: np.ndarray, parameters: Parameters) -> np.ndarray:
    names = [str(var.name) for var in module["main"].params[1:]]
    machine = relax.VirtualMachine(tvm.compile(module, tvm.target.Target({"kind": "llvm"})), tvm.cpu())
    (result,) = machine["main"](*(tvm.runtime.tensor(value) for value in (picture, *(parameters[n] for n in names))))
    return result.numpy()


def test_a_damaged_batch_norm_is_named() -> None:
    b = ModelBuilder(HW, quantized=False)
    model = b.finish({"out": negative_variance(b)})
    with pytest.raises(CompileError, match=r"^late\.bn: batch norm variance \+ epsilon must be positive"):
        folded(model)


def test_a_batch_norm_that_tasks_share_is_folded_once() -> None:
    """Each task with its own copy of the shared part: one weight, one fold."""
    results = []
    for copied in (False, True):
        b = ModelBuilder(HW, quantized=False, batch_norms="backbone")
        features = [b.conv("backbone.stem", b.image(), 6, bias=False)] * 2
        if copied:
            b.copy = "/second"
            features[1] = b.conv("backbone.stem", b.image(), 6, bias=False)
        model = b.finish({task: b.conv(f"{task}.head", x, 2) for task, x in zip("ab", features, strict=True)})
        assert batch_norm_names(import_onnx(model).module) == ["backbone.stem.bn"]
        result, _, count = folded(model)
        assert count == 1
        results.append(run_onnx(result, random_picture(HW, 2)))
    assert all(np.array_equal(results[0][task], results[1][task]) for task in ("a", "b"))
