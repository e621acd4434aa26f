"""Random networks, all parties: heavy-tailed weights, dead channels, shifts that saturate, sizes of any kind."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, event, given, reject, settings

from configs import load
from configs.schema import Config
from quant.certificate import CertificateError
from tests.parity.harness import Parties
from tests.parity.parts import pictures
from tests.parity.random_networks import Spec, build, specs
from tests.parity.trial import Trial

Check = Callable[[Spec], None]

# A network takes seconds: no shrinking, the drawn one is small enough to be looked at.
EXAMPLES = settings(
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=(HealthCheck.too_slow,),
    print_blob=True,
)


@pytest.fixture(scope="module")
def check(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Runs a drawn network through all parties. A function, so that a failing example is printed without the config."""
    config, folder = load(repository / "configs/4pe_resize/multitask.py"), tmp_path_factory.mktemp("random")
    return lambda spec: _check(spec, config, folder)


def _check(spec: Spec, config: Config, folder: Path) -> None:
    try:
        network = build(spec, config)
    except CertificateError:
        event("refused by the certificate")
        reject()
    tasks = [task.deployment() for task in network.tasks]
    parties = Parties(network, spec.hw, network.output_names, folder, tasks)
    im_hw = (spec.hw[0] - 3, spec.hw[1] - 5) if spec.detection else None
    trial = Trial.of(parties, pictures(spec.hw, seed=spec.seed), im_hw)
    assert trial.first_differences() == []
    strengths = list(trial.strengths().values())
    total = sum(strengths[1:], strengths[0])
    event(f"{total.saturated:.0%} saturated")
    if min(total.even_ties, total.odd_ties) == 0:
        event("too dead to tell one rounding from another")
        reject()


@settings(EXAMPLES, max_examples=4)
@given(spec=specs())
def test_all_parties_agree(spec: Spec, check: Check) -> None:
    check(spec)


@pytest.mark.matrix
@settings(EXAMPLES, max_examples=100)
@given(spec=specs())
def test_all_parties_agree_on_many(spec: Spec, check: Check) -> None:
    check(spec)
