"""The register of devices as transports see it: logins, signed messages across crashes, secrets that end."""

import asyncio
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from gateway.devices import Secrets, Verdict
from gateway.devices.credentials import MasterKey, matches
from gateway.devices.issuing import Issuer, book_file, master_key_file
from gateway.devices.limits import Limits
from gateway.devices.options import Options
from gateway.devices.seen import GENERATION_HEADER
from protocol.devices import device_key
from protocol.seams import ConfigurationError
from tests.unit.device_house import Clock, House, in_house, issue, signed


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def issuer(data: Path, clock: Clock | None = None) -> Issuer:
    return Issuer(data, (clock or Clock()).ms)


# Logins.


def test_password_proves_its_own_device_only(data: Path) -> None:
    pump, valve, signer = issue(data, "pump", "valve")[0], issue(data, "v")[0], issue(data, "signer", kind="hmac")[0]

    async def scenario(house: House) -> None:
        login = house.register.login
        assert await login("pump", pump.password) == Verdict("pump")
        assert await login("pump", pump.password) == Verdict("pump")  # remembered
        assert (await login("pump", pump.password + "x")).refusal == "secret"
        assert (await login("pump", valve.password)).refusal == "secret"
        assert (await login("pump", "")).refusal == "secret"
        assert (await login("pump", "x" * 100_000)).refusal == "secret"
        assert (await login("pump", "\ud800")).refusal == "secret"
        assert (await login("nobody", pump.password)).refusal == "unknown"
        assert (await login("signer", signer.key)).refusal == "secret"
        assert house.register.counters.logins == 2
        assert house.register.counters.refusals["secret"] == 6

    in_house(data, scenario)


def test_login_that_was_verified_once_is_not_hashed_again(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (pump,) = issue(data, "pump")
    hashed: list[str] = []

    def counting(password: str, stored: str) -> bool:
        hashed.append(password)
        return matches(password, stored)

    monkeypatch.setattr("gateway.devices.register.matches", counting)

    async def scenario(house: House) -> None:
        for _ in range(50):
            assert not (await house.register.login("pump", pump.password)).refusal
        assert (await house.register.login("pump", "wrong")).refusal
        assert hashed == [pump.password, "wrong"]

    in_house(data, scenario)


def test_login_under_way_while_its_secret_ends_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pump, valve = issue(data, "pump", "valve")
    go_on = threading.Event()

    def slow(password: str, stored: str) -> bool:
        return go_on.wait(10) and matches(password, stored)

    monkeypatch.setattr("gateway.devices.register.matches", slow)

    async def scenario(house: House) -> None:
        logins = [asyncio.create_task(house.register.login(each.device, each.password)) for each in (pump, valve)]
        await asyncio.sleep(0)  # their hashing has begun
        issuer(data).revoke(["pump"])
        issuer(data).rotate(["valve"])
        await house.register.refresh()
        go_on.set()
        assert [(await login).refusal for login in logins] == ["secret", "secret"]

    in_house(data, scenario)


def test_certificate_proves_whoever_is_known_and_not_revoked(data: Path) -> None:
    issue(data, "pump", kind="certificate")
    issue(data, "gone", kind="certificate")
    issuer(data).revoke(["gone"])

    async def scenario(house: House) -> None:
        assert house.register.certified("pump") == Verdict("pump")
        assert house.register.certified("gone").refusal == "revoked"
        assert house.register.certified("nobody").refusal == "unknown"
        assert house.register.known("gone")
        assert not house.register.known("nobody")

    in_house(data, scenario)


# Signed messages.


def test_message_is_taken_once_and_its_copies_are_acknowledged(data: Path) -> None:
    (pump,) = issue(data, "pump")

    async def scenario(house: House) -> None:
        assert await house.send(signed(pump, 1, 1)) == "taken"
        assert await house.send(signed(pump, 1, 1)) == "repeated"
        assert await house.send(signed(pump, 1, 1, length=8)) == "repeated"  # as many bytes of it as the device cares to send
        assert await house.send(signed(pump, 1, 1, b"other")) == "replayed"
        assert await house.send(signed(pump, 1, 70)) == "taken"
        assert await house.send(signed(pump, 1, 7)) == "taken"  # skipped, and within the window
        assert await house.send(signed(pump, 1, 6)) == "replayed"  # older than that
        assert await house.send(signed(pump, 3, 0)) == "taken"
        assert await house.send(signed(pump, 1, 71)) == "replayed"
        assert await house.send(signed(pump, 2, 71)) == "replayed"

    in_house(data, scenario)


@pytest.mark.parametrize("part", ["device", "boot", "sequence", "target", "body"])
def test_signature_covers_every_part(data: Path, part: str) -> None:
    pump, _ = issue(data, "pump", "other")
    right = signed(pump, 1, 1, b"body")
    other = {"device": "other", "boot": 2, "sequence": 2, "target": "/j", "body": b"bodz"}

    async def scenario(house: House) -> None:
        assert house.register.signed(right._replace(**{part: other[part]})).refusal == "secret"
        assert await house.send(right) == "taken"

    in_house(data, scenario)


@pytest.mark.parametrize("length", [0, 1, 7, 33])
def test_signature_is_8_to_32_bytes(data: Path, length: int) -> None:
    (pump,) = issue(data, "pump")
    whole = signed(pump, 1, 1)

    async def scenario(house: House) -> None:
        wrong = whole._replace(signature=(whole.signature + b"\0")[:length])
        assert house.register.signed(wrong).refusal == "secret"
        last = whole._replace(signature=whole.signature[:-1] + bytes([whole.signature[-1] ^ 1]))
        assert house.register.signed(last).refusal == "secret"

    in_house(data, scenario)


@pytest.mark.parametrize(("boot", "sequence"), [(-1, 1), (1, -1), (1 << 32, 1), (1, 1 << 32), (1 << 80, 1)])
def test_numbers_beyond_32_bits_are_refused_however_well_signed(data: Path, boot: int, sequence: int) -> None:
    (pump,) = issue(data, "pump")

    async def scenario(house: House) -> None:
        assert house.register.signed(signed(pump, boot, sequence)).refusal == "secret"

    in_house(data, scenario)


def test_names_and_targets_that_are_no_text_are_refused(data: Path) -> None:
    (pump,) = issue(data, "pump")

    async def scenario(house: House) -> None:
        good = signed(pump, 1, 1)
        assert house.register.signed(good._replace(device="pump\udcff")).refusal == "unknown"
        assert house.register.signed(good._replace(target="/i\udcff")).refusal == "secret"

    in_house(data, scenario)


def test_copy_while_the_first_is_under_way_has_to_come_back(data: Path) -> None:
    (pump,) = issue(data, "pump")

    async def scenario(house: House) -> None:
        first = signed(pump, 1, 1)
        assert house.register.signed(first).device == "pump"
        assert house.register.signed(first).refusal == "busy"
        assert house.register.signed(signed(pump, 1, 1, b"other")).refusal == "busy"
        house.register.settle(first, False)
        assert await house.send(first) == "taken"
        assert await house.send(first) == "repeated"

    in_house(data, scenario)


def test_payload_keeps_what_the_register_needs_after_a_crash(data: Path) -> None:
    (pump,) = issue(data, "pump")

    async def scenario(house: House) -> None:
        verdict = house.register.signed(signed(pump, 3, 4, length=8))
        assert [name for name, _ in verdict.headers] == [
            "Spoorway-Boot",
            "Spoorway-Sequence",
            "Spoorway-Signature",
            GENERATION_HEADER,
        ]
        assert [value for _, value in verdict.headers][:2] == ["3", "4"]

    in_house(data, scenario)


# What outlives a restart.


def test_everything_taken_is_known_after_a_clean_restart_and_after_a_crash(data: Path) -> None:
    pump, valve = issue(data, "pump", "valve")
    crashed: list[Path] = []

    async def before(house: House) -> None:
        assert await house.send(signed(pump, 5, 1)) == "taken"

    async def between(house: House) -> None:
        assert await house.send(signed(pump, 5, 1)) == "repeated"
        assert await house.send(signed(pump, 5, 2)) == "taken"
        assert await house.send(signed(valve, 9, 9)) == "taken"
        crashed.append(house.crashed())

    async def after(house: House) -> None:
        assert await house.send(signed(pump, 5, 1)) == "repeated"
        assert await house.send(signed(pump, 5, 2)) == "repeated"
        assert await house.send(signed(pump, 5, 2, b"other")) == "replayed"
        assert await house.send(signed(pump, 4, 3)) == "replayed"
        assert await house.send(signed(valve, 9, 9)) == "repeated"
        assert await house.send(signed(pump, 5, 3)) == "taken"

    in_house(data, before)
    in_house(data, between)

    async def later(house: House) -> None:
        assert await house.send(signed(valve, 9, 9)) == "repeated"  # though the journal is not read that far back again

    in_house(crashed[0], after)
    in_house(crashed[0], later)


def test_lost_checkpoint_is_rebuilt_from_the_whole_journal(data: Path) -> None:
    (pump,) = issue(data, "pump")

    async def before(house: House) -> None:
        assert await house.send(signed(pump, 5, 1)) == "taken"

    async def after(house: House) -> None:
        assert await house.send(signed(pump, 5, 1)) == "repeated"

    in_house(data, before)
    for file in data.glob("device-seen.db*"):
        file.unlink()
    in_house(data, after)


def test_payload_on_disk_whose_answer_was_never_given_is_known_after_the_crash(data: Path) -> None:
    (pump,) = issue(data, "pump")
    crashed: list[Path] = []

    async def before(house: House) -> None:
        verdict = house.register.signed(signed(pump, 1, 1))
        await house.append(verdict.device, verdict.headers)
        crashed.append(house.crashed())

    async def after(house: House) -> None:
        assert await house.send(signed(pump, 1, 1)) == "repeated"

    in_house(data, before)
    in_house(crashed[0], after)


def test_checkpoint_waits_for_messages_that_are_durable_but_not_settled(data: Path) -> None:
    (pump,) = issue(data, "pump")
    crashed: list[Path] = []

    async def before(house: House) -> None:
        message = signed(pump, 1, 1)
        verdict = house.register.signed(message)
        await house.append(verdict.device, verdict.headers)
        await house.register.begin_checkpoint()
        await house.register.finish_checkpoint()
        crashed.append(house.crashed())
        house.register.settle(message, True)
        await house.register.finish_checkpoint()
        crashed.append(house.crashed())

    async def after(house: House) -> None:
        assert await house.send(signed(pump, 1, 1)) == "repeated"

    in_house(data, before)
    for folder in crashed:
        in_house(folder, after)
    with sqlite3.connect(crashed[1] / "device-seen.db") as db:
        assert db.execute("SELECT sequence FROM cursor").fetchall() == [(1,)]
    db.close()


def test_device_that_logged_in_leaves_no_numbers_behind(data: Path) -> None:
    """A payload of MQTT has the device's name and perhaps its numbers, but no signature."""
    (pump,) = issue(data, "pump")
    crashed: list[Path] = []

    async def before(house: House) -> None:
        await house.append("pump", (("Spoorway-Boot", "99"), ("Spoorway-Sequence", "99")))
        crashed.append(house.crashed())

    async def after(house: House) -> None:
        assert await house.send(signed(pump, 1, 1)) == "taken"

    in_house(data, before)
    in_house(crashed[0], after)


def test_new_key_begins_new_numbers_and_the_old_ones_stay_worthless(data: Path) -> None:
    (old,) = issue(data, "pump")
    crashed: list[Path] = []

    async def before(house: House) -> None:
        assert await house.send(signed(old, 50, 1)) == "taken"
        late = signed(old, 50, 2)
        verdict = house.register.signed(late)
        (new,) = issuer(data).rotate(["pump"])
        assert isinstance(new, Secrets)
        await house.register.refresh()
        assert await house.send(signed(new, 1, 1)) == "taken"
        await house.append(verdict.device, verdict.headers)  # was on its way before
        house.register.settle(late, True)
        assert house.register.signed(signed(old, 50, 3)).refusal == "secret"
        crashed.append(house.crashed())

    async def after(house: House) -> None:
        master = MasterKey(master_key_file(house.data)).read()
        assert master is not None
        new = Secrets("pump", device_key(master, "pump", 2).hex())
        assert await house.send(signed(new, 1, 1)) == "repeated"
        assert await house.send(signed(new, 1, 2)) == "taken"
        assert house.register.signed(signed(old, 50, 1)).refusal == "secret"

    in_house(data, before)
    in_house(crashed[0], after)


def test_second_process_on_the_folder_is_refused_where_devices_sign(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.devices.register.OWNER_WAIT_S", 0)
    issue(data, "pump")

    async def scenario(house: House) -> None:
        from gateway.devices.register import Register

        second = Register(house.data)
        with pytest.raises(ConfigurationError, match="another gateway process"):
            await second.start()
        await second.stop()

    in_house(data, scenario)


# Secrets that end.


def test_revoking_and_rotating_end_connections_once_and_open_logins(data: Path) -> None:
    pump, valve = issue(data, "pump", "valve")

    async def scenario(house: House) -> None:
        ended: list[str] = []
        for name in ("pump", "valve", "pump"):
            house.register.watch(name, lambda name=name: ended.append(name))  # type: ignore[misc]
        unwatch = house.register.watch("pump", lambda: ended.append("left before"))
        unwatch()
        unwatch()
        for each in (pump, valve):
            assert not (await house.register.login(each.device, each.password)).refusal
        issuer(data).revoke(["pump"])
        await house.register.refresh()
        assert ended == ["pump", "pump"]
        assert (await house.register.login("pump", pump.password)).refusal == "revoked"
        assert house.register.signed(signed(pump, 1, 1)).refusal == "revoked"
        issuer(data).rotate(["valve"])
        await house.register.refresh()
        assert ended == ["pump", "pump", "valve"]
        assert (await house.register.login("valve", valve.password)).refusal == "secret"

    in_house(data, scenario)


def test_connection_that_cannot_be_ended_does_not_keep_the_others(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    issue(data, "pump")

    async def scenario(house: House) -> None:
        ended: list[int] = []
        house.register.watch("pump", lambda: 1 // 0)  # type: ignore[arg-type, return-value]
        house.register.watch("pump", lambda: ended.append(1))
        issuer(data).revoke(["pump"])
        await house.register.refresh()
        assert ended == [1]

    in_house(data, scenario)
    assert "ZeroDivisionError" in caplog.text


def test_change_by_another_process_is_noticed_within_a_second_by_itself(data: Path) -> None:
    issue(data, "pump")

    async def scenario(house: House) -> None:
        ended = asyncio.Event()
        house.register.watch("pump", ended.set)
        issuer(data).revoke(["pump"])
        async with asyncio.timeout(1):
            await ended.wait()

    in_house(data, scenario)


def test_new_limits_end_no_connection(data: Path) -> None:
    issue(data, "pump")

    async def scenario(house: House) -> None:
        ended: list[int] = []
        house.register.watch("pump", lambda: ended.append(1))
        assert house.register.delay_s("pump", 10) == 0
        issuer(data).limit(["pump"], Limits(payloads_per_s=0.1))
        await house.register.refresh()
        assert house.register.delay_s("pump", 10) == 0
        assert house.register.delay_s("pump", 10) == pytest.approx(10)
        house.clock.seconds += 10
        assert house.register.delay_s("pump", 10) == 0
        issuer(data).limit(["pump"], Limits(payloads_per_s=0))
        await house.register.refresh()
        assert house.register.delay_s("pump", 10) == 0
        assert not ended

    in_house(data, scenario)


def test_limits_of_the_configuration_hold_for_who_has_none(data: Path) -> None:
    issue(data, "pump")
    issue(data, "free", limits=Limits(payloads_per_s=0))

    async def scenario(house: House) -> None:
        assert [house.register.delay_s("pump", 1) for _ in range(3)] == [0, 0, 1]
        assert [house.register.delay_s("free", 1) for _ in range(3)] == [0, 0, 0]
        assert [house.register.delay_s("nobody", 1) for _ in range(3)] == [0, 0, 0]
        assert house.register.counters.delayed == 1

    in_house(data, scenario, options=Options(payloads_per_s=1, burst_s=2))


def test_register_may_appear_while_the_gateway_runs_and_be_put_back_from_a_backup(data: Path) -> None:
    async def scenario(house: House) -> None:
        assert not house.register.known("pump")
        (pump,) = issue(data, "pump")
        await house.register.refresh()
        assert await house.send(signed(pump, 1, 1)) == "taken"
        backup = data / "backup"
        shutil.copy(book_file(data), backup)
        issue(data, "later")
        await house.register.refresh()
        assert house.register.known("later")
        backup.replace(book_file(data))
        await house.register.refresh()
        assert not house.register.known("later")
        assert await house.send(signed(pump, 1, 1)) == "repeated"

    in_house(data, scenario)


def test_key_of_a_generation_that_was_rotated_away_stays_worthless_when_an_old_register_is_put_back(data: Path) -> None:
    (old,) = issue(data, "pump")

    async def scenario(house: House) -> None:
        backup = data / "backup"
        shutil.copy(book_file(data), backup)
        (new,) = issuer(data).rotate(["pump"])
        assert isinstance(new, Secrets)
        await house.register.refresh()
        assert await house.send(signed(new, 1, 1)) == "taken"
        backup.replace(book_file(data))
        await house.register.refresh()
        assert house.register.signed(signed(old, 9, 9)).refusal == "secret"

    in_house(data, scenario)
