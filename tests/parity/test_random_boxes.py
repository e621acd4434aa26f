"""Random networks with boxes and pixel classes, all parties."""

import pytest
from hypothesis import given, settings

from tests.parity.conftest import Check
from tests.parity.random_networks import EXAMPLES, Spec, specs


@settings(EXAMPLES, max_examples=2)
@given(spec=specs(detection=True))
def test_all_parties_agree(spec: Spec, check: Check) -> None:
    check(spec)


@pytest.mark.matrix
@settings(EXAMPLES, max_examples=50)
@given(spec=specs(detection=True))
def test_all_parties_agree_on_many(spec: Spec, check: Check) -> None:
    check(spec)
