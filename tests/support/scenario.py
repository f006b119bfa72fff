"""Sessions as text: commands, `----`, what came out; blank line; the next ones.

    register payments pay-1 10.0.0.1:8080 lease=15
    dig A payments.svc.internal.
    ----
    NOERROR aa
    payments.svc.internal. 3 A 10.0.0.1

Lines that begin with `#` are kept as they are.
"""

import shlex
from dataclasses import dataclass, field

import dns.flags

from registry.model import Port
from tests.support.world import World, outcome, records

SEPARATOR = "----"


@dataclass
class Block:
    """Commands and what they printed when the file was written."""

    comments: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def text(self, output: list[str]) -> str:
        return "\n".join([*self.comments, *self.commands, SEPARATOR, *output])


def parse(text: str) -> list[Block]:
    """The blocks of a scenario file."""
    blocks = []
    for paragraph in text.strip().split("\n\n"):
        block, seen = Block(), False
        for line in paragraph.splitlines():
            if line == SEPARATOR:
                seen = True
            elif seen:
                block.expected.append(line)
            elif line.startswith("#"):
                block.comments.append(line)
            else:
                block.commands.append(line)
        blocks.append(block)
    return blocks


async def run(world: World, block: Block) -> list[str]:
    """What the commands of *block* print in *world*."""
    lines: list[str] = []
    for command in block.commands:
        lines += await _run_one(world, shlex.split(command))
    return lines


async def _run_one(world: World, words: list[str]) -> list[str]:
    options = dict(w.split("=", 1) for w in words if "=" in w)
    match [w for w in words if "=" not in w]:
        case ["register", service, instance, where]:
            return await _register(world, service, instance, where, options)
        case ["renew", service, instance]:
            return [] if await world.renew(service, instance) else ["404 not found"]
        case ["deregister", service, instance]:
            await world.deregister(service, instance)
            return []
        case ["state", service, instance, state]:
            await world.set_state(service, instance, state)
            return []
        case ["advance", seconds]:
            done = await world.advance(float(seconds.removesuffix("s")))
            return [
                *(f"evicted {key}" for key in done.evicted),
                *(f"suspect {key}" for key in done.suspects),
                *(f"forgotten {key}" for key in done.forgotten),
            ]
        case ["outage", seconds]:
            await world.outage(float(seconds.removesuffix("s")))
            return []
        case ["dig", qtype, name]:
            edns = int(options["edns"]) if "edns" in options else None
            message = world.dig(name, qtype, edns=edns, tcp=options.get("tcp") == "yes")
            aa = " aa" if message.flags & dns.flags.AA else ""
            tc = " tc" if message.flags & dns.flags.TC else ""
            return [outcome(message) + aa + tc, *records(message)]
        case ["list"]:
            return [
                f"{service.name} {i.id} {i.state}"
                for _, service in sorted(world.catalog.services())
                for i in sorted(service.instances.values(), key=lambda i: i.id)
            ]
        case other:
            raise ValueError(f"no such command: {' '.join(other)}")


async def _register(
    world: World, service: str, instance: str, where: str, options: dict[str, str]
) -> list[str]:
    address, _, port = where.rpartition(":")
    ports = [_port(spec) for spec in filter(None, options.get("ports", "").split(","))]
    before = world.catalog.revision
    await world.register(
        service,
        instance,
        address.strip("[]"),
        int(port),
        ports=ports,
        lease_ttl=int(options.get("lease", 60)),
        record_ttl=int(options["ttl"]) if "ttl" in options else None,
        priority=int(options.get("priority", 0)),
        weight=int(options.get("weight", 100)),
    )
    return [] if world.catalog.revision > before else ["renewed, no change"]


def _port(spec: str) -> Port:
    """`http:80` or `game:4000:udp`."""
    name, number, *protocol = spec.split(":")
    return Port(name, int(number), *protocol)
