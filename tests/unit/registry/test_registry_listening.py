"""What a follower tells its listener, and settings on their way through snapshot and feed."""

from registry.changes import Change, InstanceUp, ServiceSettings
from registry.follower import Follower
from registry.keys import keys_of
from registry.store import RedisStore
from tests.support.following import beat, running
from tests.support.lease_worlds import a_registration
from tests.support.store import StoreServer
from tests.support.waiting import until


async def test_a_listener_hears_each_change_once_it_is_folded_in_and_of_snapshots(
    store_server: StoreServer,
) -> None:
    zone = store_server.fresh_zone()
    store, follower = RedisStore(store_server.url, zone), Follower(store_server.url, zone)
    heard: list[Change | None] = []
    revisions: list[int] = []

    def hear(change: Change | None) -> None:
        heard.append(change)
        revisions.append(follower.catalog.revision)

    follower.listen(hear)
    await beat(store)
    async with running(follower):
        await until(lambda: follower.loaded)
        granted = await store.register(a_registration(), lease_id="x")
        revision = await store.set_answers("payments", 2)
        assert await follower.reached(revision, 5.0)
    await store.close()

    assert heard == [
        None,
        InstanceUp(granted.instance, revision - 1, revision - 2),
        ServiceSettings("payments", 2, revision, revision - 1),
    ]
    assert revisions == [revision - 2, revision - 1, revision]


async def test_settings_stand_in_snapshots_and_garbage_among_them_is_skipped(
    store_server: StoreServer,
) -> None:
    zone = store_server.fresh_zone()
    store = RedisStore(store_server.url, zone)
    await store.register(a_registration("payments"), lease_id="x")
    await store.register(a_registration("orders"), lease_id="x")
    await store.set_answers("payments", 1)
    store_server.command("HSET", keys_of(zone).meta, "answers:orders", "many")

    follower = Follower(store_server.url, zone)
    async with running(follower):
        await until(lambda: follower.loaded)
    await store.close()

    answers = {name: service.answers for name, service in follower.catalog.services()}
    assert answers == {"payments": 1, "orders": 0}
    assert follower.malformed == 1
