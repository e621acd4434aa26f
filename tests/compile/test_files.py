"""The Relax pair: what is saved is loaded, and whatever does not fit is refused with file, parameter and cure."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tvm
import tvm_ffi
from tvm import relax

from compile.errors import CompileError
from compile.files import Parameters, load_pair, pair_of, parameter_digests, save_pair
from compile.rewrite import main_function

VALUES: Parameters = {
    "stem.conv.weight": np.arange(-9, 9, dtype=np.int8).reshape(2, 3, 3, 1),
    "stem.conv.bias": np.array([-(2**31), 2**31 - 1], np.int32),
    "stem.bn.weight": np.array([np.pi, 1e-30, -0.0], np.float32),
    "stem.scale": np.array(0.25, np.float32),
    "table": np.arange(256, dtype=np.uint8),
}


def module_of(values: Parameters) -> tvm.IRModule:
    """`main(image, weights...)` that returns its inputs."""
    image = relax.Var("image", relax.TensorType((1, 4), "float32"))
    weights = [relax.Var(name, relax.TensorType(value.shape, str(value.dtype))) for name, value in values.items()]
    main = main_function([image, *weights], [], [image, *weights], {"num_input": 1})
    return tvm.IRModule({relax.GlobalVar("main"): main})


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A pair that a test may spoil."""
    save_pair(tmp_path / "model", module_of(VALUES), VALUES)
    return tmp_path / "model"


def test_trailing_bytes_are_named(prefix: Path) -> None:
    with pair_of(prefix)[1].open("ab") as file:
        file.write(b"\x00")
    with pytest.raises(CompileError, match=r"model-0000\.params: truncated or not a parameter file \(\d+ bytes where"):
        load_pair(prefix)


def test_round_trip(prefix: Path) -> None:
    module, values = load_pair(prefix)
    assert tvm_ffi.structural_equal(module, module_of(VALUES))
    assert [var.name for var in module["main"].params] == ["image", *VALUES], "dotted names stay as they are"
    assert values.keys() == VALUES.keys()
    for name, value in VALUES.items():
        assert (values[name].dtype, values[name].shape) == (value.dtype, value.shape)
        assert values[name].tobytes() == value.tobytes()


def test_the_bytes_depend_on_the_content_alone(prefix: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shuffled = {name: np.asarray(VALUES[name], order="F") for name in reversed(VALUES)}
    save_pair(again, module_of(VALUES), shuffled)
    assert [path.read_bytes() for path in pair_of(again)] == [path.read_bytes() for path in pair_of(prefix)]
    assert len(list(tmp_path.iterdir())) == 4, "no partial file is left"


@pytest.mark.parametrize(("index", "what"), [(0, "symbol.json"), (1, "0000.params")])
def test_a_missing_file_is_named(prefix: Path, index: int, what: str) -> None:
    pair_of(prefix)[index].unlink()
    with pytest.raises(CompileError, match=rf"model-{what}: no such file; .*compile\.build"):
        load_pair(prefix)


@pytest.mark.parametrize("length", [0, 1, 8, 100, -200, -1])
def test_truncated_params_are_named(prefix: Path, length: int) -> None:
    params = pair_of(prefix)[1]
    params.write_bytes(params.read_bytes()[:length])
    with pytest.raises(CompileError, match=r"model-0000\.params: truncated .*; build it again"):
        load_pair(prefix)


@pytest.mark.parametrize(
    "content", ["", "{}", "text", '{"root": 1}', str(tvm.ir.save_json(relax.const(1))), b"\xff\xfe\x00"]
)
def test_a_symbol_file_that_holds_no_module_is_named(prefix: Path, content: str | bytes) -> None:
    pair_of(prefix)[0].write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(CompileError, match=r"model-symbol\.json: not a module saved by Bitroad"):
        load_pair(prefix)


def without_bias(values: Parameters) -> None:
    del values["stem.conv.bias"]


def longer_bias(values: Parameters) -> None:
    values["stem.conv.bias"] = np.zeros(3, np.int32)


def float_bias(values: Parameters) -> None:
    values["stem.conv.bias"] = np.zeros(2, np.float32)


def turned_weight(values: Parameters) -> None:
    values["stem.conv.weight"] = values["stem.conv.weight"].transpose(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_bias, r"parameter stem\.conv\.bias is missing; model-symbol\.json needs it"),
        (longer_bias, r"parameter stem\.conv\.bias is int32\[3\], but model-symbol\.json wants int32\[2\]"),
        (float_bias, r"parameter stem\.conv\.bias is float32\[2\], but model-symbol\.json wants int32\[2\]"),
        (turned_weight, r"parameter stem\.conv\.weight is int8\[2, 1, 3, 3\], but .* wants int8\[2, 3, 3, 1\]"),
    ],
)
def test_a_parameter_that_does_not_fit_is_named(
    prefix: Path, spoil: Callable[[Parameters], None], message: str
) -> None:
    symbol = pair_of(prefix)[0].read_bytes()
    values = dict(VALUES)
    spoil(values)
    save_pair(prefix, module_of(VALUES), values)
    assert pair_of(prefix)[0].read_bytes() == symbol
    with pytest.raises(CompileError, match=rf"model-0000\.params: {message}"):
        load_pair(prefix)


def test_digests_notice_every_kind_of_change() -> None:
    digests = parameter_digests(VALUES)
    changed = dict(VALUES)
    changed["table"] = VALUES["table"] ^ (np.arange(256) == 7).astype(np.uint8)
    changed["stem.conv.weight"] = VALUES["stem.conv.weight"].reshape(2, 1, 3, 3)
    changed["stem.conv.bias"] = VALUES["stem.conv.bias"].view(np.float32)
    differing = {name for name, digest in parameter_digests(changed).items() if digest != digests[name]}
    assert differing == VALUES.keys() - {"stem.bn.weight", "stem.scale"}
