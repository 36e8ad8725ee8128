"""Names of parameters in old checkpoints."""

import logging
from typing import Any


def is_before_version(local_metadata: dict[str, Any], version: int) -> bool:
    """Whether a module's state was saved before this version of it, or tells none."""
    saved = local_metadata.get("version")
    return saved is None or saved < version


def rename_parameters(state_dict: dict[str, Any], old_prefix: str, new_prefix: str) -> None:
    """Give the entries that begin with ``old_prefix`` the new one, in place, with a warning."""
    names = [name for name in state_dict if name.startswith(old_prefix)]
    for name in names:
        state_dict[new_prefix + name.removeprefix(old_prefix)] = state_dict.pop(name)
    if names:
        logging.getLogger(__name__).warning(
            "Weights of an old version: %d parameters named %s* are taken as %s*; please save the "
            "checkpoint again",
            len(names),
            old_prefix,
            new_prefix,
        )
