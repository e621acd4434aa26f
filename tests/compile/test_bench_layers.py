"""`runtime.bench --layers` on a model that the compiler made."""

import json
from itertools import groupby

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
    names = [layer["name"] for layer in load_artifact(model).layers]
    assert [name for row in rows for name in row["layers"] if name in names] == names
    assert {row["name"] for row in rows if len(row["layers"]) > 1} >= {"neck.Slice_output_0 and 1 more"}
    for row in rows:
        assert row["milliseconds"] > 0
        # a layer that did more than dot products in registers alone would be reckoned wrongly
        assert 0 <= row["peak_share"] < 110
    assert any(row["peak_share"] > 0 for row in rows)


def test_the_table_for_people(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", model, "--count", "3", "--layers"]) == 0
    text = capsys.readouterr().out
    assert "% of peak" in text
    for _, layers in groupby(load_artifact(model).layers, key=lambda layer: layer["call"]):
        assert f"  {next(layers)['name']}" in text
