"""Rules of retention -> what a target holds no longer: once a day, or when asked, by the process that loads the target.

What was removed, when, and by which rules, is in DATA/retention/TARGET.json; a file TARGET.asked beside it asks for it at once.
It names the rules that are meant: who knows others removes nothing, and says in TARGET.json which those are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from protocol.seams import ConfigurationError
from spoorway.files import read_json, write_json
from storage.targets import Removed, Rule

_DAY_MS = 86_400_000
_UNITS = {"h": 3_600_000, "d": _DAY_MS, "w": 7 * _DAY_MS, "y": 365 * _DAY_MS}
_AGE = re.compile(r"([1-9]\d{0,8})([hdwy])")


@dataclass(frozen=True, slots=True)
class Options:
    """older_than: such as "90d"; h, d, w or y (365 days), by when an event was received. target: "" = each that can.

    app_id, event, schema: only these events; see storage.targets.Rule.
    """

    older_than: str
    app_id: str = ""
    event: str = ""
    schema: str = ""
    target: str = ""

    def __post_init__(self) -> None:
        if not _AGE.fullmatch(self.older_than):
            raise ConfigurationError(f'older_than: expected an age such as "90d", "24h", "6w" or "2y", not {self.older_than!r}')

    def rule(self) -> Rule:
        found = _AGE.fullmatch(self.older_than)
        assert found is not None
        return Rule(int(found[1]) * _UNITS[found[2]], self.app_id, self.event, self.schema)


Rules = Mapping[str, Options]


def rules_of(rules: Rules, target: str) -> dict[str, Rule]:
    """By name, those that are for this target."""
    return {name: options.rule() for name, options in rules.items() if options.target in ("", target)}


def result_file(data: Path, target: str) -> Path:
    """What the last round of rules removed from the target."""
    return data / "retention" / f"{target}.json"


def request_file(data: Path, target: str) -> Path:
    """There while `spoorway retain` wants a round now."""
    return data / "retention" / f"{target}.asked"


def ask(data: Path, target: str, rules: Mapping[str, Rule]) -> None:
    """For a round of these rules now. Raises OSError."""
    write_json(request_file(data, target), {"rules": _written(rules)})


def kept(data: Path, target: str, rules: Mapping[str, Rule]) -> dict[str, Any] | None:
    """What the last round of these rules removed, by name; None: who loads the target knows other rules, or none."""
    told = read_json(result_file(data, target)) or {}
    return told.get("removed", {}) if told.get("rules") == _written(rules) else None


def _written(rules: Mapping[str, Rule]) -> dict[str, Any]:
    return {name: asdict(rule) for name, rule in rules.items()}


class Expiry:
    """One target's rules, piece by piece. Call `step` between two commits."""

    def __init__(self, data: Path, name: str, target: Any, rules: Mapping[str, Rule]) -> None:
        self._data, self._name, self._target, self._rules = data, name, target, rules
        self._left: list[str] = []
        self._after: Any = None
        last = kept(data, name, rules)  # a round of other rules is none of these
        self._removed = {rule: Removed(**counts) for rule, counts in (last or {}).items()}
        self._now_ms = 0
        self._last_ms = 0 if last is None else int((read_json(result_file(data, name)) or {}).get("ran_ms", 0))

    @property
    def under_way(self) -> bool:
        return bool(self._left)

    def step(self, now_ms: int) -> bool:
        """One piece of what is due; False when nothing is. Raises what the target raises."""
        if not self._left and not self._begun(now_ms):
            return False
        rule = self._left[0]
        removed, self._after = self._target.expire(self._rules[rule], self._now_ms, self._after)
        before = self._removed.get(rule, Removed())
        self._removed[rule] = Removed(before.events + removed.events, before.failed + removed.failed)
        if self._after is None:
            del self._left[0]
        if not self._left:
            self._end()
        return True

    def _begun(self, now_ms: int) -> bool:
        asked = request_file(self._data, self._name).exists()
        if asked and not self._meant():
            self._answer()
            asked = False
        if not asked and (not self._rules or 0 <= now_ms - self._last_ms < _DAY_MS):
            return False
        self._left = list(self._rules) if hasattr(self._target, "expire") else []
        self._now_ms, self._after, self._removed = now_ms, None, {}
        if not self._left:
            self._end()
        return bool(self._left)

    def _meant(self) -> bool:
        """Whether these are the rules that are asked for."""
        request = read_json(request_file(self._data, self._name))
        return bool(self._rules) and (request is None or request.get("rules") == _written(self._rules))

    def _end(self) -> None:
        self._last_ms = self._now_ms
        self._answer()

    def _answer(self) -> None:
        removed = {rule: one._asdict() for rule, one in self._removed.items()}
        told = {"ran_ms": self._last_ms, "rules": _written(self._rules), "removed": removed}
        write_json(result_file(self._data, self._name), told)
        request_file(self._data, self._name).unlink(missing_ok=True)


def would_expire(target: Any, rule: Rule, now_ms: int) -> Removed:
    """What a rule would remove now; nothing is."""
    events = failed = 0
    after: Any = None
    while True:
        removed, after = target.expire(rule, now_ms, after, dry=True)
        events, failed = events + removed.events, failed + removed.failed
        if after is None:
            return Removed(events, failed)
