"""JSON files that users write: an object, or one line that says why not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bpfnic.spec.errors import BpfnicError


def read_object(path: str | Path, members: str, hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> dict:
    """What a file holds, an object of `members`. hook: as json.loads takes for its objects' pairs. Raises BpfnicError:
    no such file, no text, no JSON, no object."""
    try:
        content = json.loads(Path(path).read_text(), object_pairs_hook=hook)
    except OSError as error:
        raise BpfnicError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BpfnicError(f"{path}: no text") from None
    except json.JSONDecodeError as error:
        raise BpfnicError(f"{path}: line {error.lineno}: {error.msg}") from None
    if not isinstance(content, dict):
        raise BpfnicError(f"{path}: must be an object of {members}")
    return content
