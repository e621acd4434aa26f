"""The import arrows of the design: walks every import of every package."""

import ast
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("configs", "quant", "train", "compile", "runtime")
TORCH_FILES = {Path(f"quant/{name}.py") for name in ("batch_norm", "fake", "observer", "processes")}

# Who may import which of our packages and of the heavy libraries; the standard library is free for all.
ALLOWED = {
    "configs": {"configs", "pydantic"},
    "quant": {"quant", "numpy"},
    "train": None,  # anything but compile
    "compile": {"compile", "quant", "configs", "runtime", "numpy", "tvm", "tvm_ffi", "onnx", "onnxruntime", "rich"},
    "runtime": {"runtime", "numpy", "tvm", "tvm_ffi", "cv2"},
}


def imported_roots(path: Path) -> set[str]:
    roots: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            roots.update(alias.name.split(".")[0] for alias in node.names)
            assert not any(alias.name.startswith("compile.") for alias in node.names), (
                f"{path}: `import compile.x` shadows the builtin; write `from compile.x import y`"
            )
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            roots.add(node.module.split(".")[0])
    return roots


def source_files() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((REPOSITORY / package).rglob("*.py"))]


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_imports_follow_the_arrows(path: Path) -> None:
    relative = path.relative_to(REPOSITORY)
    package = relative.parts[0]
    roots = imported_roots(path) - set(sys.stdlib_module_names)
    if relative in TORCH_FILES:
        roots -= {"torch"}
    allowed = ALLOWED[package]
    if allowed is None:
        assert "compile" not in roots, f"{relative} imports compile"
    else:
        assert roots <= allowed, f"{relative} imports {sorted(roots - allowed)}"
