"""Who produces and who reads a variable of `main`; what passes over the float graph ask."""

from collections import defaultdict

import tvm
from tvm import relax

from compile.files import Parameters
from compile.rewrite import bindings_of, main_function, operator_name


class Graph:
    """A view of `main`: `bindings` without the last, which is the tuple of `outputs`."""

    def __init__(self, module: tvm.IRModule) -> None:
        self.main = module["main"]
        *self.bindings, last = bindings_of(self.main)
        self.outputs: list[relax.Var] = list(last.value.fields)
        self.value_of = {binding.var: binding.value for binding in self.bindings}
        self.readers: dict[relax.Var, list[relax.Var]] = defaultdict(list)
        for binding in self.bindings:
            for argument in arguments_of(binding.value):
                self.readers[argument].append(binding.var)

    def operator(self, var: relax.Expr) -> str:
        """Name of the operator that produces a variable; empty for inputs and weights."""
        return operator_name(self.value_of[var]) if var in self.value_of else ""

    def only_reader(self, var: relax.Var) -> relax.Var | None:
        """The one binding that reads a variable; None where there are more, or it is an output."""
        readers = self.readers[var]
        return readers[0] if len(readers) == 1 and var not in self.outputs else None

    def bias_of(self, addition: relax.Expr) -> relax.Var | None:
        """The bias parameter where `addition` is `conv + reshape(bias)`, else None.

        So the importer writes a convolution's third input.
        """
        if self.operator(addition) != "relax.add":
            return None
        result, column = self.value_of[addition].args
        if self.operator(result) != "relax.nn.conv2d" or self.operator(column) != "relax.reshape":
            return None
        return self.value_of[column].args[0]

    def is_read_once(self, bias: relax.Var) -> bool:
        """Whether a bias is that of one convolution only, which reads it through a reshape."""
        columns = self.readers[bias]
        return len(columns) == 1 and len(self.readers[columns[0]]) == 1

    def is_bare_convolution(self, var: relax.Expr) -> bool:
        """A convolution's result, with its bias, before anything else."""
        return self.operator(var) == "relax.nn.conv2d" or self.bias_of(var) is not None


def arguments_of(value: relax.Expr) -> list[relax.Var]:
    """The variables that a binding's value reads."""
    if isinstance(value, relax.Tuple):
        return [field for field in value.fields if isinstance(field, relax.Var)]
    if isinstance(value, relax.TupleGetItem):
        return [value.tuple_value]
    found: list[relax.Var] = []
    for argument in getattr(value, "args", []):
        found += arguments_of(argument) if isinstance(argument, relax.Tuple) else []
        found += [argument] if isinstance(argument, relax.Var) else []
    return found


def pruned(
    main: relax.Function,
    bindings: list[tuple[relax.Var, relax.Expr]],
    outputs: list[relax.Expr],
    parameters: Parameters,
) -> tvm.IRModule:
    """A module of these bindings without what nothing reads.

    `main` takes the weights that are left; `parameters` keeps only those.
    """
    needed = set(arguments_of(relax.Tuple(outputs)))
    kept = []
    for var, value in reversed(bindings):
        if var in needed:
            kept.append((var, value))
            needed.update(arguments_of(value))
    image = main.params[0]
    weights = {var.name: var for var in needed if var.name in parameters and var not in dict(kept)}
    for name in set(parameters) - set(weights):
        del parameters[name]
    inputs = [image, *(weights[name] for name in sorted(weights))]
    function = main_function(inputs, kept[::-1], outputs, {"num_input": int(main.attrs["num_input"])})
    return tvm.IRModule({relax.GlobalVar("main"): function})
