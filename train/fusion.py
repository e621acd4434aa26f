"""Which batch norm is absorbed in which step: `fusion_bn_patterns` against the names of the network's batch norms."""

import re
from collections.abc import Mapping, Sequence

from train.errors import FusionError


def fusion_plan(
    names: Sequence[str], patterns: Mapping[int, Sequence[str]], *, where: str = "fusion_bn_patterns"
) -> dict[int, tuple[str, ...]]:
    """Per step the batch norms that it absorbs, in the network's order.

    `names` are the dotted names of all batch norms (`backbone.stem.bn`); a pattern matches from a name's start. Every
    pattern must match something, every batch norm exactly one pattern: FusionError names the pattern or the batch norm.
    `where` names file and key in the error.
    """
    owner: dict[str, tuple[int, str]] = {}
    for step, expressions in sorted(patterns.items()):
        for expression in expressions:
            matched = [name for name in names if re.match(expression, name)]
            if not matched:
                raise FusionError(
                    f"{where}.{step}: {expression!r} matches no batch norm; their names look like {names[0]!r}: "
                    "correct the pattern or remove it"
                )
            for name in matched:
                if name in owner:
                    other_step, other = owner[name]
                    raise FusionError(
                        f"{where}.{step}: {expression!r} matches {name!r}, which {where}.{other_step}: {other!r} "
                        "already matches; a batch norm is absorbed once: narrow one of the two"
                    )
                owner[name] = (step, expression)
    left = [name for name in names if name not in owner]
    if left:
        raise FusionError(
            f"{where}: {len(left)} batch norm(s) would be left when step 3 begins, the first is {left[0]!r}; "
            "add a pattern that matches"
        )
    return {step: tuple(name for name in names if owner[name][0] == step) for step in sorted(patterns)}
