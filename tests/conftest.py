"""What every test may use, and the guards that look after every test."""

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Iterator

import hypothesis
import pytest

from tests.support.store import StoreServer
from tests.support.waiting import until

hypothesis.settings.register_profile(
    "default",
    max_examples=100,
    deadline=None,  # a busy machine is no failure
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    print_blob=True,
)
hypothesis.settings.register_profile(
    "thorough", parent=hypothesis.settings.get_profile("default"), max_examples=2000
)
hypothesis.settings.load_profile(os.environ.get("CALLBOARD_TEST_PROFILE", "default"))

_running: list[StoreServer] = []


@pytest.fixture(scope="session")
def store_server() -> Iterator[StoreServer]:
    """One server for all tests that do not break theirs; each takes a `fresh_zone()`."""
    with StoreServer() as server:
        _running.append(server)
        yield server
        _running.remove(server)


@pytest.fixture(autouse=True)
def no_stray_keys(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test on the common server leaves no key but the four of a zone, unless it expires."""
    yield
    if "store_server" in request.fixturenames:
        for server in _running:
            stray = sorted(server.stray_keys())
            if stray:
                server.command("DEL", *stray)  # so that only the guilty test fails
            assert not stray, f"keys without a time to live: {stray[:5]}"


@pytest.fixture(autouse=True)
def no_leaked_tasks(request: pytest.FixtureRequest) -> None:
    """An async test ends every task it began."""
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("_tasks_end")


@pytest.fixture
async def _tasks_end() -> AsyncIterator[None]:
    yield
    own = asyncio.current_task()

    def others() -> set[asyncio.Task[object]]:
        return {task for task in asyncio.all_tasks() if task is not own}

    try:
        # Tasks that end by themselves (a connection whose client has gone) may need a turn.
        await until(lambda: not others(), seconds=2.0)
    except AssertionError:
        leaked = [repr(task.get_coro()) for task in others()]
        pytest.fail(f"tasks left behind: {leaked[:5]}")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Octets are named by their place in the table: a random id in them would give each worker
    of a parallel run tests of other names."""
    return argname if isinstance(val, bytes) else None
