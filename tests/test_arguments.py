"""Numbers on the command line: what does not fit is refused in a line that names the option, and nothing is begun."""

import importlib

import pytest

CONFIG = "configs/4pe_resize/multitask.py"
CALLS = [
    (("train.train", "--config", CONFIG, "--step", "0"), "--seed", "-1"),
    (("train.evaluate", "--config", CONFIG, "--model", "m.so"), "--limit", "0"),
    (("train.data.anchors", "--config", CONFIG), "--seed", "-1"),
    (("train.data.anchors", "--config", CONFIG), "--limit", "0"),
    (("train.data.show", "--config", CONFIG, "--out", "o"), "--limit", "0"),
    (("train.data.show", "--config", CONFIG, "--out", "o"), "--count", "0"),
    (("train.data.pack", "a", "b"), "--megabytes", "0"),
    (("train.data.generate", "--out", "o", "--count", "1"), "--seed", "-1"),
    (("train.data.generate", "--out", "o"), "--count", "0"),
    (("runtime.bench", "--model", "m.so"), "--seed", "-1"),
    (("runtime.bench", "--model", "m.so"), "--warmup", "many"),
    (("runtime.bench", "--model", "m.so"), "--threads", "0"),
]


@pytest.mark.parametrize(
    ("call", "option", "value"), CALLS, ids=lambda part: part[0] if isinstance(part, tuple) else part
)
def test_a_number_that_does_not_fit_is_refused(
    call: tuple[str, ...], option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module, *arguments = call
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module(module).main([*arguments, option, value])
    error = capsys.readouterr().err
    assert f"argument {option}: " in error
    assert value in error
