"""What an operator sees of a guard, and how it is ended."""

from registrar.suspects import Suspects
from registry.catalog import Catalog
from registry.memory import MemoryStore
from tests.support.lease_worlds import a_registration
from tests.support.registrar import Registrar, a_registrar


async def four_of_which_two_are_suspect(registrar: Registrar) -> None:
    for i in ("a", "b", "c", "d"):
        await registrar.register("pay_ments", i)
    await registrar.advance(66)


async def test_suspects_are_counted_listed_and_named() -> None:
    async with a_registrar() as registrar:
        await four_of_which_two_are_suspect(registrar)

        service = await registrar.call("GET", "/services/payments")
        listed = await registrar.call("GET", "/services/pay_ments")
        health = await registrar.call("GET", "/health")
        metrics = (await registrar.call("GET", "/metrics")).body

        assert service.status == 404
        assert {i["state"] for i in listed.body["instances"]} == {"suspect"}
        assert health.body["guard"] == {"suspects": 2, "services": ["pay-ments"]}
        assert "registrar_suspect_instances 2.0" in metrics
        assert "registrar_guarded_services 1.0" in metrics


async def test_a_release_lets_them_go_in_any_spelling_of_the_name() -> None:
    async with a_registrar() as registrar:
        await four_of_which_two_are_suspect(registrar)

        released = await registrar.call("POST", "/v1/guard/Pay-Ments/release")
        again = await registrar.call("POST", "/guard/pay_ments/release")
        health = await registrar.call("GET", "/health")

        assert (released.status, released.body["evicted"]) == (200, 2)
        assert (again.status, again.body["evicted"]) == (200, 0)
        assert health.body["guard"] == {"suspects": 0, "services": []}
        assert (await registrar.call("GET", "/services/pay_ments")).status == 404


async def test_a_release_of_what_nobody_knows_is_not_found() -> None:
    async with a_registrar() as registrar:
        for name in ("nobody", "-", "x" * 200):
            answer = await registrar.call("POST", f"/v1/guard/{name}/release")
            assert (answer.status, answer.body["type"]) == (
                404,
                "urn:callboard:problem:lease-not-found",
            )


async def test_suspects_are_counted_by_service_as_changes_come() -> None:
    store = MemoryStore(lambda: 0)
    for i in ("a", "b"):
        await store.register(a_registration("web", i), lease_id="x")
    await store.set_state("web/a", "suspect", "")
    catalog = Catalog.of(await store.snapshot())
    suspects = Suspects()

    suspects.rebuild(catalog)
    assert (suspects.count, suspects.services) == (1, ["web"])
    await store.set_state("web/a", "serving", "")
    for change in store.changes_after(catalog.revision):
        catalog.apply(change)
    suspects.update("web", catalog.service("web"))
    assert (suspects.count, suspects.services) == (0, [])
    suspects.update("gone", None)
    assert suspects.services == []
