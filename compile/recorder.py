"""Reads the intermediate tensors of a compiled model while it runs, from the very `.so` that is deployed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from compile.errors import CompileError
from compile.storage import Storage
from runtime.artifact import by_call
from runtime.engine import watching


class LayerRecorder:
    """Fills `values` with the output of every layer that leaves one in memory, by the layer's name.

    `layers` are those of the plan (`compile.kernel_plan.layer_entries`). It relies on the n-th kernel call being the
    n-th of the plan, and refuses where it is not.
    """

    def __init__(self, layers: Sequence[Mapping[str, Any]]) -> None:
        self._calls = by_call(layers)
        self._functions = {layer["function"] for layer in layers}
        self._next = 0
        self._problem: str | None = None
        self.values: dict[str, NDArray[Any]] = {}

    @contextmanager
    def watching(self, vm: Any) -> Iterator[None]:
        """Records one run. Raises CompileError where the calls are not those of the module."""
        self.values, self._next, self._problem = {}, 0, None
        with watching(vm, self._on_call):
            yield
        if self._problem or self._next != len(self._calls):
            problem = self._problem or f"{self._next} kernels ran, the module lists {len(self._calls)}"
            raise CompileError(f"{problem}: the .so and its source do not fit; build the model again")

    def _on_call(self, _function: Any, name: str, before: bool, _result: Any, *arguments: Any) -> int:
        if not before and name in self._functions:
            layers = self._calls[self._next] if self._next < len(self._calls) else []
            expected = layers[0]["function"] if layers else "none"
            if expected != name:
                self._problem = self._problem or f"call {self._next} is {name}, the module says {expected}"
            else:
                self._keep([layer for layer in layers if layer["storage"]], arguments)
            self._next += 1
        return 0

    def _keep(self, layers: Sequence[Mapping[str, Any]], arguments: Sequence[Any]) -> None:
        """The results of a call, which are the last ones of its arguments."""
        for layer, result in zip(layers, arguments[-len(layers) :], strict=True):
            self.values[layer["name"]] = Storage(**layer["storage"]).values(result.numpy())
