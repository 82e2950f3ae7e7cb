"""What may be changed in a failed event before another try, and by whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.seams import ConfigurationError
from spoorway.mending import Unmended, assignments, script

SENT = {"e": "pv", "aid": "", "vid": "three"}


def test_assignments_set_and_take_away() -> None:
    assert assignments(["aid=shop", "vid=", "url=http://x/?a=b"])(SENT, {}) == {"e": "pv", "aid": "shop", "url": "http://x/?a=b"}


def test_what_nobody_names_stays_even_if_empty() -> None:
    assert assignments(["e=pp"])(SENT, {}) == {**SENT, "e": "pp"}


@pytest.mark.parametrize("text", ["aid", "=x", ""])
def test_assignment_without_a_name_or_sign_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="expected PARAMETER=VALUE"):
        assignments([text])


def lua(tmp_path: Path, body: str) -> Path:
    file = tmp_path / "mend.lua"
    file.write_text(f"function enrich(event, parameters)\n{body}\nend\n")
    return file


def test_script_sees_the_event_and_sets_parameters(tmp_path: Path) -> None:
    pytest.importorskip("lupa")
    mend = script(lua(tmp_path, 'return {aid = event.app_id .. "-" .. parameters.e, vid = false, tid = 7}'))
    assert mend(SENT, {"app_id": "shop"}) == {"e": "pv", "aid": "shop-pv", "tid": "7"}


@pytest.mark.parametrize("body", ["return nil", "return {}", ""])
def test_script_may_leave_everything(tmp_path: Path, body: str) -> None:
    pytest.importorskip("lupa")
    assert script(lua(tmp_path, body))(SENT, {}) == SENT


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ('return nil, "not ours"', "not ours"),
        ("return {co = {1}}", "co: a value must be text"),
        ("error('broken')", "broken"),
        ("while true do end", "more than 1000000 instructions"),
        ("return {aid = os.getenv('HOME')}", "os"),
        ("return {aid = io.open('/etc/passwd')}", "io"),
    ],
)
def test_script_that_refuses_breaks_or_reaches_out_mends_nothing(tmp_path: Path, body: str, why: str) -> None:
    pytest.importorskip("lupa")
    with pytest.raises(Unmended, match=why):
        script(lua(tmp_path, body))(SENT, {})


def test_script_that_is_none_is_refused_at_once(tmp_path: Path) -> None:
    pytest.importorskip("lupa")
    (tmp_path / "x.lua").write_text("function (")
    with pytest.raises(ConfigurationError, match=r"--script: .*x\.lua"):
        script(tmp_path / "x.lua")
    with pytest.raises(ConfigurationError, match="No such file"):
        script(tmp_path / "none.lua")
