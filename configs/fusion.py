"""Which step absorbs which batch norm: `fusion_bn_patterns` applied to names. Training and compiler both ask here."""

import re
from collections.abc import Iterable, Mapping, Sequence

from .errors import ConfigError


def absorbing_steps(
    patterns: Mapping[int, Sequence[str]], batch_norms: Iterable[str], *, file: str = "config"
) -> dict[str, int]:
    """The step (1 or 2) that absorbs each batch norm, by its dotted name, e.g. `backbone.stem.bn`.

    A pattern is a regular expression that has to match from the start of the dotted name of the parameter, e.g.
    `backbone.stem.bn.weight`. Raises ConfigError for a pattern that matches nothing, a batch norm that two patterns
    match, and one that none matches: it would be left over when step 3 begins.
    """
    names = sorted(batch_norms)
    chosen: dict[str, tuple[int, str]] = {}
    for step, entries in sorted(patterns.items()):
        key = f"fusion_bn_patterns.{step}"
        for pattern in entries:
            matched = [name for name in names if re.match(pattern, f"{name}.weight")]
            if not matched:
                raise ConfigError(file, key, f"{pattern!r} matches no batch norm", "correct or remove it")
            for name in matched:
                if name in chosen:
                    other_step, other = chosen[name]
                    raise ConfigError(
                        file,
                        key,
                        f"{name} is matched by {pattern!r} and by {other!r} of step {other_step}",
                        "make them disjoint",
                    )
                chosen[name] = (step, pattern)
    left = [name for name in names if name not in chosen]
    if left:
        raise ConfigError(
            file,
            "fusion_bn_patterns",
            f"no pattern matches {left[0]}" + (f" and {len(left) - 1} more" if len(left) > 1 else ""),
            "a batch norm would be left over when step 3 begins, add a pattern",
        )
    return {name: step for name, (step, _) in chosen.items()}
