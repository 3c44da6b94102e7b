"""The judge of hostile hosts finds what he is there for: hosts that ask nobody, too often, or about something else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from captoken import current
from captoken.tools import ToolGuard, calling

from .world import ATTACKS, MAIN, READ, RUN, SECRET, STEAL, WRITE, Attack, World


class Host:
    """A runtime of a few lines. `fault` is what is wrong with it."""

    def __init__(self, world: World, fault: str = "") -> None:
        self.world = world
        self.fault = fault
        self.guard = world.guard()
        self.tools: dict[str, Any] = {tool.__name__: tool for tool in world.tools}

    def drive(self, attack: Attack) -> None:
        script = self.world.turns(attack.main, ask=("ask", {}))
        with current.use(self.world.token(uses=attack.uses)):
            for name, arguments in [call for turn in script for call in turn]:
                self.world.hear(self.called(self.guard, name, arguments))

    def called(self, guard: ToolGuard, name: str, arguments: Any) -> Any:
        asked = {**arguments, "path": str(self.world.work)} if self.fault == "asks about something else" else arguments
        decision = guard.check(name, asked, agent=MAIN)
        if self.fault == "records nothing":
            self.world.trail.clear()
        if self.fault == "leaks":
            return SECRET
        if decision.grant is None and self.fault != "asks nobody":
            return guard.for_model(decision)
        try:
            if decision.grant is None:
                return self.tools[name](**arguments)
            with calling(decision.grant):
                return self.tools[name](**arguments)
        except (TypeError, ValueError, OSError, KeyError) as error:
            return str(error)


@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if not attack.sub])
def test_a_host_that_asks_passes(name: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    Host(world).drive(ATTACKS[name])
    world.judge(effects=ATTACKS[name].effects)


@pytest.mark.parametrize("fault", ["asks nobody", "asks about something else", "records nothing", "leaks"])
def test_a_host_with_a_fault_does_not(fault: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    Host(world, fault).drive(Attack([[READ, RUN, STEAL, WRITE]]))
    with pytest.raises(AssertionError):
        world.judge()


@pytest.mark.parametrize("call", [STEAL, RUN, ("write_file", {"path": "{outside}/new.txt", "text": "x"})])
def test_each_thing_that_nobody_permitted_is_found_by_itself(call: Any, tmp_path: Path) -> None:
    world = World(tmp_path)
    Host(world, "asks nobody").drive(Attack([[READ, call]]))
    with pytest.raises(AssertionError, match="nobody permitted"):
        world.judge()
    world.effects.clear()  # a host that says nothing of it: what is left of it is seen
    with pytest.raises(AssertionError):
        world.judge()


def test_a_host_that_does_nothing_passes_no_attack(tmp_path: Path) -> None:
    world = World(tmp_path)
    for attack in ATTACKS.values():
        assert attack.effects > 0
        with pytest.raises(AssertionError):
            world.judge(effects=attack.effects)


def test_a_late_tool_writes(tmp_path: Path) -> None:
    world = World(tmp_path)
    asyncio.run(world.write_late(str(world.work / "out/late.txt")))
    assert world.changed == [str(world.work / "out/late.txt")]
    with pytest.raises(AssertionError, match="nobody permitted"):
        world.judge()
