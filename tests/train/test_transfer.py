"""--init: a run that begins with the weights of another one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from train.checkpoint import load_checkpoint
from train.train import main


def command(config: Path, folder: Path, *more: str) -> list[str]:
    return ["--config", str(config), "--step", "0", "--pipeline-test", "--out", str(folder), *more]


def test_shared_weights_are_taken_and_a_new_head_is_not(
    tiny_run: Any, tiny_config: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(tmp_path)
    with config.open("a") as file:
        file.write("from . import det_rear\ntasks = [det_person, det_rear]\n")
    with (config.parent / "det_rear.py").open("a") as file:
        file.write("from .det_person import data\n")
    first = tiny_run.folder / "with-bn-last-0000.params"
    assert main(command(config, tmp_path / "run", "--init", str(first))) == 0
    assert "are new" in capsys.readouterr().out
    before, after = load_checkpoint(first).model, load_checkpoint(tmp_path / "run/with-bn-init.params").model
    same = [name for name in after if name in before and name.endswith("conv.weight")]
    assert any(name.startswith("backbone.") for name in same)
    assert all(torch.equal(before[name], after[name]) for name in same)
    assert not any(name.startswith("det_rear.") for name in same)
    assert not after["backbone.stem.frozen"], "what was frozen moves again"
    counts = [value for name, value in after.items() if name.endswith("observer.count")]
    assert counts, "there are ranges"
    assert not any(counts), "those of other pictures are forgotten"


def test_a_run_is_resumed_with_the_same_beginning_only(
    tiny_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = str(tiny_run.folder / "with-bn-last-0000.params")
    assert main(command(tiny_run.config, tmp_path, "--init", first)) == 0
    assert main(command(tiny_run.config, tmp_path, "--resume")) == 2
    assert "begun with another --init" in capsys.readouterr().err
    assert main(command(tiny_run.config, tmp_path, "--resume", "--init", first)) == 0


@pytest.mark.parametrize("name", ["fusion-bn-c1-last-0000.params", "fusion-bn-c2-last-0000.params"])
def test_absorbed_batch_norms_are_refused(
    tiny_run: Any, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tiny_run.config, tmp_path, "--init", str(tiny_run.folder / name))) == 2
    assert f"{name}: its batch norms are absorbed" in capsys.readouterr().err


def test_another_network_is_refused(
    tiny_run: Any, tiny_config: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(tmp_path)
    with (config.parent / "utils.py").open("a") as file:
        file.write('backbone = {**backbone, "blocks": (1, 2, 7, 4)}\n')
    first = tiny_run.folder / "with-bn-last-0000.params"
    assert main(command(config, tmp_path / "run", "--init", str(first))) == 0, "fewer blocks are all there"
    with (config.parent / "utils.py").open("a") as file:
        file.write('backbone = {**backbone, "blocks": (1, 4, 7, 4)}\n')
    assert main(command(config, tmp_path / "other", "--init", str(first))) == 2
    assert "is missing there" in capsys.readouterr().err


def test_wrong_calls(tiny_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(command(tiny_run.config, tmp_path, "--init", str(tmp_path / "none.params")))
    assert "no such checkpoint" in capsys.readouterr().err
    given = str(tiny_run.folder / "with-bn-last-0000.params")
    with pytest.raises(SystemExit, match="2"):
        main([*command(tiny_run.config, tmp_path, "--init", given), "--step", "1"])
    assert "is for step 0" in capsys.readouterr().err
