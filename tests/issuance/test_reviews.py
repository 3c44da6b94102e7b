"""Before a task starts, an issuer is asked whether it still stands by what it signed; and nobody is let in who is not stood by."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from captoken.adapters._issuance import reviews
from captoken.adapters.issuance import IssuanceService, Setup
from captoken.issuance.registry import MemoryRegistry

from .fixtures import KEYRING, LEASE, POLICY, policy
from .logging_in import Person, house
from .registries import tasks
from .test_certificates import ACME, ROBOT, STRANGER, Door, denied, good
from .test_issuance import World, exchange, nightly, proof, svid, workflow


class Asked:
    """A review, and what it was asked about."""

    def __init__(self, says: Any = True) -> None:
        self.says = says
        self.about: list[str] = []

    async def __call__(self, text: str) -> bool:
        self.about.append(text)
        if isinstance(self.says, Exception):
            raise self.says
        if self.says == "never":
            await asyncio.sleep(60)
        return self.says  # type: ignore[no-any-return]


def test_a_review_is_asked_about_each_assertion_of_its_provider_and_no_other() -> None:
    of_ci, of_mesh = Asked(), Asked()
    world = World(reviews={"ci": of_ci, "mesh": of_mesh})
    text = workflow()
    assert world.ask(**nightly(client_assertion=text))["status"] == 200
    assert (of_ci.about, of_mesh.about) == ([text], [])
    actor = svid()
    assert world.ask(proof(), **exchange(client_assertion=actor))["status"] == 200
    assert (of_ci.about, of_mesh.about) == ([text], [actor])


@pytest.mark.parametrize("says", [False, None, 1, "yes"])
def test_anything_but_true_is_no(says: Any) -> None:
    world = World(reviews={"ci": Asked(says)})
    said = world.ask(**nightly())
    assert (said["status"], said["error"]) == (401, "invalid_client") and "no longer confirms it" in said["error_description"]
    assert World(reviews={"ci": Asked(True)}).ask(**nightly())["status"] == 200


def test_a_subject_is_reviewed_by_its_own_code_too() -> None:
    no = World(reviews={"acme": Asked(False)}).ask(proof(), **exchange())
    assert (no["status"], no["error"]) == (400, "invalid_request")
    assert World(reviews={"acme": Asked(True)}).ask(proof(), **exchange())["status"] == 200


@pytest.mark.parametrize("says", [RuntimeError("of the assertion"), KeyError("x"), TimeoutError(), "never"])
def test_while_nobody_answers_no_task_starts(says: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(reviews, "PATIENCE", 0.1)
    world = World(reviews={"ci": Asked(says)})
    said = world.ask(**nightly())
    assert (said["status"], said["error"]) == (503, "temporarily_unavailable")
    assert said["error_description"] == "this service cannot ask the assertion's issuer now"
    assert "the review of provider ci fails: " in caplog.text and "of the assertion" not in caplog.text
    assert tasks(world.registry) == []


def test_strangers_cannot_have_an_issuer_asked() -> None:
    """Only what held is asked about, and no more often than its identity may ask."""
    asked = Asked()
    world = World(policy_of(per_minute=2), reviews={"ci": asked})
    text = workflow()
    assert world.ask(**nightly(client_assertion=text[:-8] + "AAAAAAAA"))["status"] == 401
    assert world.ask(**nightly(client_assertion=workflow(repository_owner_id="7")))["status"] == 401
    assert asked.about == []
    answers = [world.ask(**nightly(client_assertion=workflow(run_id=str(number))))["status"] for number in range(4)]
    assert answers == [200, 200, 429, 429] and len(asked.about) == 2


def policy_of(per_minute: int) -> Any:
    return policy(POLICY.replace('origin = "https://issuer.example"', f'origin = "https://issuer.example"\nper_minute = {per_minute}', 1))


def test_a_certificate_is_reviewed_as_well(tmp_path: Path) -> None:
    asked = Asked()
    door = Door(tmp_path, reviews={"mesh": asked})
    robot = ACME.svid(ROBOT)
    good(door.ask(robot))
    assert asked.about == robot.pem[:1]
    denied(door.ask(STRANGER.svid(ROBOT)), "no path leads from it")
    assert len(asked.about) == 1
    asked.says = False
    denied(door.ask(robot), "no longer confirms it")


def test_a_login_here_is_reviewed_as_well() -> None:
    asked = Asked()
    with house(reviews={"people": asked}) as (origin, _):
        assert Person(origin).tokens()["scope"] == "notes"
        assert len(asked.about) == 1 and asked.about[0].count(".") == 2
        for says, status, told in ((False, 400, "no longer confirms it"), (OSError("of the assertion"), 503, "cannot ask")):
            asked.says = says
            page = Person(origin).page()
            assert page.status_code == status and told in page.text and "request" not in page.text


def test_a_review_of_nobody_is_a_mistake_of_the_program() -> None:
    with pytest.raises(ValueError, match="reviews: the policy has no provider clustre, k8s"):
        IssuanceService(policy(), KEYRING, MemoryRegistry(floor=0), lease=LEASE, reviews={"clustre": Asked(), "k8s": Asked(), "ci": Asked()})


def test_a_reload_that_would_drop_a_review_has_no_effect() -> None:
    no = Asked(False)
    world = World(reviews={"ci": no})
    renamed = policy(POLICY.replace("[provider.ci]", "[provider.github]").replace('provider = "ci"', 'provider = "github"'))

    def reloaded(of: Any) -> bool:
        return asyncio.run(world.app.reload(lambda: Setup(of, KEYRING)))

    assert reloaded(renamed) is False
    assert world.ask(**nightly())["status"] == 401
    assert reloaded(policy(POLICY + "\n")) is True
    no.says = True
    assert world.ask(**nightly())["status"] == 200
