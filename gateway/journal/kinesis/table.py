"""The rows of the leases in DynamoDB: read all together, each changed only by a conditional write."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gateway.journal.kinesis.service import Missing, Service, code_of, errors, translating, wait_for
from protocol.seams import ConfigurationError, Position, TransientError

_NAMES = {"#s": "shard", "#o": "owner", "#c": "counter", "#f": "finished", "#i": "idle"}
_REFUSED = "ConditionalCheckFailedException"


@dataclass(frozen=True, slots=True)
class Lease:
    """A row. owner: "" = nobody. idle: (position, milliseconds since 1970): then nothing followed it."""

    shard: str
    owner: str
    counter: int
    finished: bool
    idle: tuple[Position, int] | None


class LeaseTable:
    """The rows of one reader, among those of others. Every call raises TransientError (nobody knows whether it was done) or
    PermanentError (refused). Any thread.
    """

    def __init__(self, service: Service, reader: str, owner: str) -> None:
        """owner: who writes, ":me" in what `update` is told."""
        self._service, self._reader, self._owner = service, reader, owner
        self._table = service.config.leases

    def read(self) -> dict[str, Lease]:
        """Shard -> its lease, as the table has it now. Raises ConfigurationError where there is no table and none may be made."""
        try:
            return self._queried()
        except Missing:
            if not self._service.config.create:
                raise ConfigurationError(
                    f"journal.kinesis.leases: there is no table {self._table!r}; make it with the key reader (S) and shard (S),"
                    " or set create"
                ) from None
        self._make()
        return {}

    def _queried(self) -> dict[str, Lease]:
        found: dict[str, Lease] = {}
        query: dict[str, Any] = {
            "TableName": self._table,
            "KeyConditionExpression": "#r = :reader",
            "ExpressionAttributeNames": {"#r": "reader"},
            "ExpressionAttributeValues": {":reader": {"S": self._reader}},
            "ConsistentRead": True,
        }
        with translating(f"the table {self._table!r}"):
            while True:
                page = self._service.dynamodb.query(**query)
                for item in page["Items"]:
                    row = _lease(item)
                    found[row.shard] = row
                if not (last := page.get("LastEvaluatedKey")):
                    return found
                query["ExclusiveStartKey"] = last

    def update(self, shard: str, change: str, condition: str, values: dict[str, Any]) -> bool:
        """False, and nothing is changed: the condition does not hold. Raises TransientError, PermanentError."""
        every = {":me": {"S": self._owner}, ":no": {"BOOL": False}, ":one": {"N": "1"}, **values}
        used = set(re.findall(r"[#:]\w+", f"{change} {condition}"))
        try:
            with translating(f"the table {self._table!r}"):
                try:
                    self._service.dynamodb.update_item(
                        TableName=self._table,
                        Key={"reader": {"S": self._reader}, "shard": {"S": shard}},
                        UpdateExpression=change,
                        ConditionExpression=condition,
                        ExpressionAttributeNames={short: name for short, name in _NAMES.items() if short in used},
                        ExpressionAttributeValues={short: value for short, value in every.items() if short in used},
                    )
                except errors.ClientError as error:
                    if code_of(error) != _REFUSED:
                        raise
                    return False
        except Missing as error:  # of another's making, at this moment
            raise TransientError(str(error)) from error
        return True

    def forget(self, shard: str) -> None:
        """The row of a finished shard that is no longer there. Raises TransientError, PermanentError."""
        with translating(f"the table {self._table!r}"):
            self._service.dynamodb.delete_item(TableName=self._table, Key={"reader": {"S": self._reader}, "shard": {"S": shard}})

    def _make(self) -> None:
        with suppress(TransientError), translating(f"making the table {self._table!r}"):  # another worker makes it, perhaps
            self._service.dynamodb.create_table(
                TableName=self._table,
                KeySchema=[{"AttributeName": "reader", "KeyType": "HASH"}, {"AttributeName": "shard", "KeyType": "RANGE"}],
                AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("reader", "shard")],
                BillingMode="PAY_PER_REQUEST",
            )
        wait_for(self._queried)


def _lease(item: dict[str, Any]) -> Lease:
    idle: tuple[Position, int] | None = None
    if told := item.get("idle", {}).get("S"):
        *position, at_ms = map(int, told.split())
        idle = Position(*position), at_ms
    finished = bool(item.get("finished", {}).get("BOOL"))
    return Lease(str(item["shard"]["S"]), str(item["owner"]["S"]), int(item["counter"]["N"]), finished, idle)


__all__ = ["Lease", "LeaseTable"]
