"""The documents keep their word: links lead to files, commands have the options named, every pass is described."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
README = REPOSITORY / "README.md"
PIPELINE = REPOSITORY / "docs/pipeline.md"
PAGES = [README, REPOSITORY / "CHANGELOG.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
CONTRACT = {
    "train.train",
    "train.evaluate",
    "train.predict",
    "compile.importer",
    "compile.build",
    "compile.verify",
    "runtime.infer",
    "runtime.bench",
}
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"^(?:\.venv/bin/)?(?:python -m |bash )(?P<name>\S+)(?P<arguments>[^#\n]*)", re.MULTILINE)
OPTION = re.compile(r"--[a-z][a-z-]*")
DEFINED_OPTION = re.compile(r"^\s+(?:-\w, )?(--[a-z][a-z-]*)", re.MULTILINE)  # not one that a help text mentions


def targets(page: Path) -> list[Path]:
    """Where the page's links within the repository lead."""
    found = LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8")))
    return [(page.parent / link.split("#")[0]).resolve() for link in found if "://" not in link and link[0] != "#"]


def named_options() -> dict[str, set[str]]:
    """Every command in the README's fenced blocks, with the options that stand behind it."""
    named: dict[str, set[str]] = {}
    for block in FENCED.findall(README.read_text(encoding="utf-8")):
        for command in COMMAND.finditer(block):
            named.setdefault(command["name"], set()).update(OPTION.findall(command["arguments"]))
    return named


def help_of(command: str) -> str:
    call = ["bash", command] if command.startswith("tools/") else [sys.executable, "-m", command]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*call, "--help"], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def passes_of(file: Path) -> list[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef) and any("module_pass" in ast.unparse(entry) for entry in node.decorator_list)
    ]


PASS_FILES = [file for file in sorted((REPOSITORY / "compile/passes").glob("*.py")) if file.name != "__init__.py"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_to_files_of_the_repository(page: Path) -> None:
    broken = [target for target in targets(page) if not (target.is_file() and target.is_relative_to(REPOSITORY))]
    assert not broken


def test_every_page_is_linked() -> None:
    linked = {target for page in PAGES for target in targets(page)}
    assert not {page for page in PAGES if page != README} - linked


def test_the_readme_names_the_contract_and_the_script() -> None:
    assert CONTRACT | {"tools/quanti_training_2step_fusion_bn.sh"} <= named_options().keys()


@pytest.mark.parametrize(("command", "named"), sorted(named_options().items()), ids=sorted(named_options()))
def test_commands_have_the_options_that_the_readme_names(command: str, named: set[str]) -> None:
    assert not named - set(DEFINED_OPTION.findall(help_of(command)))


@pytest.mark.parametrize("file", PASS_FILES, ids=lambda file: file.stem)
def test_every_pass_has_its_section(file: Path) -> None:
    (name,) = passes_of(file)
    assert f"\n### {name}\n" in PIPELINE.read_text(encoding="utf-8")
