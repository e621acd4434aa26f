"""What an integer module says of itself: a JSON text in `main`'s attributes.

With it symbol.json and params are all that a build needs.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import tvm
from tvm import relax

from compile.errors import CompileError

ATTRIBUTE = "bitroad"


@dataclass(frozen=True)
class ModelCard:
    """What the compiler knows of a model besides its graph and weights.

    `input`, `uses_im_hw`, `tasks` and `outputs` are as in the manifest; `tensor_of_layer` names each layer's tensor in
    step 2's ONNX; `source` maps the ONNX's file name to its sha256; `parameter_digests` are those of the weights as
    ToInteger made them.
    """

    input: Mapping[str, Any]
    uses_im_hw: bool
    tasks: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    tensor_of_layer: dict[str, str]
    source: dict[str, str]
    parameter_digests: dict[str, str]


def with_card(module: tvm.IRModule, card: ModelCard) -> tvm.IRModule:
    """The module, its `main` carrying the card."""
    functions = dict(module.functions.items())
    main = module.get_global_var("main")
    functions[main] = module["main"].with_attr(ATTRIBUTE, json.dumps(asdict(card), sort_keys=True))
    return tvm.IRModule(functions, attrs=module.attrs)


def card_of(module: tvm.IRModule, where: str) -> ModelCard:
    """Reads the card back. Raises CompileError naming the file `where` when there is none."""
    main: relax.Function = module["main"]
    if main.attrs is None or ATTRIBUTE not in main.attrs:
        raise CompileError(f"{where}: no int-inference module (it says nothing of tasks and outputs); build it again")
    try:
        return ModelCard(**json.loads(str(main.attrs[ATTRIBUTE])))
    except (ValueError, TypeError) as error:
        raise CompileError(f"{where}: its description is damaged ({error}); build it again") from error
