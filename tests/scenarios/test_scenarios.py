"""Runs the sessions in this folder.  `pytest tests/scenarios --rewrite` writes them anew."""

from pathlib import Path

import pytest

from tests.support.scenario import parse, run
from tests.support.world import World

HERE = Path(__file__).parent


@pytest.mark.parametrize("path", sorted(HERE.glob("*.txt")), ids=lambda p: p.stem)
async def test_scenario(path: Path, request: pytest.FixtureRequest) -> None:
    world, blocks = World(), parse(path.read_text())
    outputs = [await run(world, block) for block in blocks]

    if request.config.getoption("--rewrite"):
        texts = [block.text(out) for block, out in zip(blocks, outputs, strict=True)]
        path.write_text("\n\n".join(texts) + "\n")
        return
    for block, output in zip(blocks, outputs, strict=True):
        assert output == block.expected, f"{path.name}: {block.commands}"
