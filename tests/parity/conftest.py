"""Networks that several parity tests look at, built and run by all parties once a session."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from configs import load
from quant.fake import use_exact_convolutions
from tests.parity import random_networks
from tests.parity.block_cases import block_cases
from tests.parity.harness import Parties
from tests.parity.head_cases import Heads, head_tasks
from tests.parity.operators import CONVOLUTIONS, FARTHEST, ConvolutionCase, pointwise_cases
from tests.parity.parts import Bench, fold, freeze, kill_channels, pictures, randomize
from tests.parity.processor import FUSED_WITNESS, NO_FUSED_WITNESS
from tests.parity.trial import Trial
from train.steps import snap

Check = Callable[[random_networks.Spec], None]

OPERATOR_HW = (23, 31)  # odd, and widths that no tile of a kernel divides
HEAD_HW = (64, 96)
BLOCK_HW = (45, 59)  # no multiple of the neck's strides


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    kernels = "float and fused int8 kernels" if FUSED_WITNESS else f"float kernels alone ({NO_FUSED_WITNESS})"
    terminalreporter.write_line(f"parity: ONNX Runtime bore witness with its {kernels}")


@pytest.fixture(scope="session", autouse=True)
def exact_convolutions() -> None:
    use_exact_convolutions()


@pytest.fixture(scope="session")
def convolutions(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """All of `operators.CONVOLUTIONS` and `FARTHEST`."""
    rng = np.random.default_rng(1)
    cases = {name: ConvolutionCase(spec, rng) for name, spec in (CONVOLUTIONS | FARTHEST).items()}
    return _operators(cases, tmp_path_factory)


@pytest.fixture(scope="session")
def pointwise(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """All of `operators.pointwise_cases`."""
    return _operators(pointwise_cases(np.random.default_rng(2)), tmp_path_factory)


@pytest.fixture(scope="session")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """All of `blocks.block_cases`, with heavy-tailed weights, dead channels and shifts that saturate."""
    bench, rng = Bench(block_cases()), np.random.default_rng(3)
    sample = pictures(BLOCK_HW, 1, seed=9)[0]
    randomize(bench, rng, sample, tail=2.5)
    fold(bench)
    kill_channels(bench, rng, 0.05)
    freeze(bench, rng, sample, too_fine=0.5)
    return Trial.of(Parties(bench, BLOCK_HW, bench.cases, tmp_path_factory.mktemp("blocks")), pictures(BLOCK_HW))


@pytest.fixture(scope="session")
def heads(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """`head_cases.Heads`, with post-processing; the pictures' last columns and rows are padding."""
    tasks = head_tasks(load(repository / "configs/4pe_resize/multitask.py"))
    network, rng = Heads(tasks), np.random.default_rng(4)
    sample = pictures(HEAD_HW, 1, seed=9)[0]
    randomize(network, rng, sample, tail=4)
    fold(network)
    freeze(network, rng, sample, too_fine=0.5)
    deployment = [task.deployment() for task in tasks]
    parties = Parties(network, HEAD_HW, network.output_names, tmp_path_factory.mktemp("heads"), deployment)
    return Trial.of(parties, pictures(HEAD_HW), (HEAD_HW[0] - 5, HEAD_HW[1] - 9))


@pytest.fixture(scope="session")
def check(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Runs a drawn network through all parties. A function, so that a failing example is printed without the config."""
    config, folder = load(repository / "configs/4pe_resize/multitask.py"), tmp_path_factory.mktemp("random")
    return lambda spec: random_networks.check(spec, config, folder)


def _operators(cases: Mapping[str, nn.Module], tmp_path_factory: pytest.TempPathFactory) -> Trial:
    bench = Bench(cases).eval()
    snap(bench)
    return Trial.of(
        Parties(bench, OPERATOR_HW, bench.cases, tmp_path_factory.mktemp("bench")), pictures(OPERATOR_HW, 4)
    )
