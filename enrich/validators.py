"""Schema documents -> compiled validators, each compiled once and kept (bounded).

Pure given the look-up it is handed: documents come from whoever calls, never from a file or a network here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jsonschema_rs

from enrich.reasons import reason, shortened
from protocol.seams import Json, Reason

SchemaLookup = Callable[[str], dict[str, Json] | None]

_MOST_KEPT = 2_000
_MOST_REASONS = 50


class Validators:
    def __init__(self, lookup: SchemaLookup) -> None:
        self._lookup = lookup
        self._compiled: dict[str, jsonschema_rs.Draft4Validator | str] = {}

    def reasons(self, uri: str, data: Json, step: str) -> Iterator[Reason]:
        """Why `data` is not what the schema `uri` asks for; nothing when it is. Unknown schema: one ResolutionError."""
        validator = self._compiled.get(uri)
        if validator is None:
            validator = self._compile(uri)
        if isinstance(validator, str):
            yield reason(step, "", validator, None, "ResolutionError", uri)
            return
        if validator.is_valid(data):
            return
        for count, error in enumerate(validator.iter_errors(data)):
            if count == _MOST_REASONS:
                yield reason(step, "", f"and more than {_MOST_REASONS} other violations", None, "ValidationError", uri)
                return
            path = "$" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.instance_path)
            rule = next((str(p) for p in reversed(error.schema_path) if isinstance(p, str)), "")
            yield reason(step, path, shortened(f"{rule}: {error.message}") or "", None, "ValidationError", uri)

    def _compile(self, uri: str) -> jsonschema_rs.Draft4Validator | str:
        document = self._lookup(uri)
        compiled: jsonschema_rs.Draft4Validator | str
        if document is None:
            compiled = "no registry knows this schema"
        else:
            # The self-describing header is the registry's, not JSON Schema's: a validator would try to fetch "$schema".
            rules: dict[str, Any] = {key: value for key, value in document.items() if key not in ("$schema", "self")}
            try:
                compiled = jsonschema_rs.Draft4Validator(rules, validate_formats=True, offline=True)
            except ValueError as error:
                compiled = f"the schema itself is not valid: {error}"
        if len(self._compiled) >= _MOST_KEPT:
            self._compiled.pop(next(iter(self._compiled)))
        self._compiled[uri] = compiled
        return compiled
