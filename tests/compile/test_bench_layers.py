"""`runtime.bench --layers` on a model that the compiler made."""

import json

import pytest

from compile.build import STEP_3
from runtime.artifact import load_artifact
from runtime.bench import main
from tests.compile.toy import Run


@pytest.fixture
def model(built: Run) -> str:
    return str(built.folder / f"{STEP_3}.so")


def test_every_layer_with_its_rate(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", model, "--count", "3", "--layers", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["layers"]
    layers = load_artifact(model).layers
    names = [layer["name"] for layer in layers]
    assert [row["name"] for row in rows if row["name"] in names] == names
    for row in rows:
        assert row["milliseconds"] > 0
        # a layer that did more than dot products in registers alone would be reckoned wrongly
        assert 0 <= row["peak_share"] < 110
    assert any(row["peak_share"] > 0 for row in rows)


def test_the_table_for_people(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", model, "--count", "3", "--layers"]) == 0
    text = capsys.readouterr().out
    assert "% of peak" in text
    for layer in load_artifact(model).layers:
        assert f"  {layer['name']}" in text
