"""Reads the intermediate tensors of a compiled model while it runs, from the very `.so` that is deployed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from compile.errors import CompileError
from compile.storage import Storage
from runtime.engine import watching


class LayerRecorder:
    """Fills `values` with every layer's output, by the layer's name.

    It relies on the n-th kernel call being the n-th layer of the module, and refuses where it is not.
    """

    def __init__(self, layers: Sequence[Mapping[str, Any]]) -> None:
        self._layers = layers
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
        if self._problem or self._next != len(self._layers):
            problem = self._problem or f"{self._next} layers ran, the module lists {len(self._layers)}"
            raise CompileError(f"{problem}: the .so and its source do not fit; build the model again")

    def _on_call(self, _function: Any, name: str, before: bool, _result: Any, *arguments: Any) -> int:
        if not before and name in self._functions:
            expected = self._next < len(self._layers)
            layer: Mapping[str, Any] = self._layers[self._next] if expected else {"function": "none"}
            if layer["function"] != name:
                self._problem = self._problem or f"call {self._next} is {name}, the module says {layer['function']}"
            else:
                self.values[layer["name"]] = Storage(**layer["storage"]).values(arguments[-1].numpy())
            self._next += 1
        return 0
