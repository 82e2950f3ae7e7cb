"""`spoorway-track URL`: events as lines of JSON on stdin -> the gateway. For shell scripts and cron.

A line is {"schema": …, "data": …} or {"verb": "structured", "category": …, …} with the arguments of that verb; both may
have `entities` and `true_ms`. The exit code tells: 0 everything is acknowledged; 1 something was refused, or is kept in the
folder for the next run; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

from spoorway_tracker.outcomes import Refusal
from spoorway_tracker.tracker import Tracker

_VERBS = ("page_view", "page_ping", "screen_view", "structured", "self_describing", "timing")
_EXAMPLES = """examples:
  echo '{"verb": "structured", "category": "backup", "action": "done", "value": 12.5}' |
    spoorway-track http://127.0.0.1:8080 --app cron
  jq -c '{schema: "iglu:com.acme/row/jsonschema/1-0-0", data: .}' rows.ndjson |
    spoorway-track mqtt://gateway/till --app till --durable
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "spoorway-track", description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url", help="http(s)://HOST[:PORT] or mqtt(s)://[USER:PASSWORD@]HOST[:PORT]/DEVICE")
    parser.add_argument("--app", default="", help="application id")
    parser.add_argument("--namespace", default="spoorway-track", help="the tracker's name (default: spoorway-track)")
    parser.add_argument("--platform", default="srv", help="default: srv")
    parser.add_argument("--user", help="user id of every event")
    parser.add_argument("--folder", default="default", help="where events wait (default: see README)")
    parser.add_argument("--device", default="", metavar="NAME", help="sign over HTTP, with the key in $SPOORWAY_DEVICE_KEY")
    parser.add_argument("--durable", action="store_true", help="each event is on the disk before the next line is read")
    parser.add_argument("--limit", type=float, default=30.0, metavar="SECONDS", help="to deliver in, after the last line")
    args = parser.parse_args(arguments)
    problems: list[str] = []

    def told(reason: str, count: int, details: str) -> None:
        problems.append(f"{reason}: {count} {details}".rstrip())

    try:
        tracker = Tracker(
            args.url, args.app, namespace=args.namespace, platform=args.platform, folder=args.folder, on_error=told,
            device=args.device, key=os.environ.get("SPOORWAY_DEVICE_KEY", "") if args.device else "",
        )  # fmt: skip
    except ValueError as error:
        parser.error(str(error))
    if args.user:
        tracker.set_user_id(args.user)
    taken = refused = 0
    for number, line in enumerate(sys.stdin, 1):
        if not line.strip():
            continue
        why = _track(tracker, line, args.durable)
        taken, refused = taken + (not why), refused + bool(why)
        if why:
            print(f"line {number}: {why}", file=sys.stderr)
        if sys.stderr.isatty() and not number % 1000:
            print(f"\r{number:,} lines", end="", file=sys.stderr, flush=True)
    delivered = tracker.close(args.limit)
    for problem in dict.fromkeys(problems):
        print(problem, file=sys.stderr)
    dropped = sum(tracker.counters.dropped.values())
    left = "" if delivered else ", the rest is kept for the next run"
    print(f"{taken:,} taken, {tracker.counters.sent:,} sent, {refused + dropped:,} refused{left}", file=sys.stderr)
    return 0 if delivered and not refused and not dropped else 1


def _track(tracker: Tracker, line: str, durable: bool) -> str:
    """Why the line was not taken; "" when it was."""
    try:
        parsed: Any = json.loads(line)
    except ValueError as error:
        return f"not JSON: {error}"
    if not isinstance(parsed, dict):
        return "not an object"
    fields = cast("dict[str, Any]", parsed)
    verb = fields.pop("verb", "self_describing")
    if verb not in _VERBS:
        return f"no verb {verb}; there are {', '.join(_VERBS)}"
    call: Callable[..., str | Refusal] = getattr(tracker, f"track_{verb}")
    try:
        done = call(**fields, durable=durable)
    except TypeError as error:  # an argument that the verb does not have, or lacks
        return str(error).replace("Verbs.", "")
    return done.value if isinstance(done, Refusal) else ""


if __name__ == "__main__":
    sys.exit(main())
