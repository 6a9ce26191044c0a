"""Everything the public client aio-kong does, done to a Sluice control plane.

The client knows nothing of Sluice, and every expectation here is one its users have of a Kong.
Run by tests/tests/clients.rs. By hand:

    KONG_ADMIN_URL=http://127.0.0.1:8001 CERTIFICATES=folder python tests/clients/aio_kong_walk.py

All entities are deleted before and after each test. The folder has cert-1.pem, key-1.pem, cert-2.pem
and key-2.pem.
"""

import os
import pathlib
import signal
import tempfile
import unittest
import uuid

import yaml
from click.testing import CliRunner
from kong.cli import kong as kongfig
from kong.client import Kong, KongError, KongResponseError

URL = os.environ["KONG_ADMIN_URL"]
CERTIFICATES = pathlib.Path(os.environ["CERTIFICATES"])
# The whole run, some ten on a quiet machine; a request that is never answered ends it.
TIME_SECONDS_MAX = 600

# What the client's apply_json is fed; its own shorthands (groups, auths, a text for a list) included.
MANIFEST = """
consumers:
- username: visitor
  id: 71021cd0-d63f-4459-a872-b365cc4f231d
  groups: [readers, writers]
- username: admin
  custom_id: "42"
  auths:
  - {type: basic-auth, config: {username: admin, password: "a b&c=é"}}
  - {type: key-auth, config: {key: open-sesame}}
services:
- name: shop
  host: shop.internal
  tags: [public, web]
  plugins:
  - {name: rate-limiting, config: {minute: 60}}
  routes:
  - name: shop
    paths: /
    hosts: api.shop.example
    methods: [GET, POST]
    plugins:
    - {name: cors, config: {origins: ["*"]}}
    - {name: jwt, config: {anonymous: visitor}}
    - name: request-termination
      consumer: {id: 71021cd0-d63f-4459-a872-b365cc4f231d}
      config: {status_code: 403, message: requires authentication}
- name: calls
  host: calls.internal
  protocol: grpc
  tags: [public, grpc]
  routes:
  - {name: calls, hosts: api.calls.example, protocols: [grpc, grpcs]}
plugins:
- name: correlation-id
  config: {header_name: X-Request-Id}
"""


def read(name):
    return (CERTIFICATES / name).read_text()


def settled(entity):
    """An entity without what a second writing may change."""
    return {name: value for name, value in entity.items() if name != "updated_at"}


class Walk(unittest.IsolatedAsyncioTestCase):
    maxDiff = None

    async def asyncSetUp(self):
        self.cli = await self.enterAsyncContext(Kong(url=URL))
        await self.cli.delete_all()

    async def asyncTearDown(self):
        await self.cli.delete_all()
        # What hangs on a deleted entity is gone with it.
        for path in ("services", "routes", "plugins", "consumers", "certificates", "snis", "acls"):
            self.assertEqual(await self.cli.execute(f"{URL}/{path}"), {"data": [], "next": None})
        for path in ("key-auths", "basic-auths", "jwts"):
            self.assertEqual((await self.cli.execute(f"{URL}/{path}"))["data"], [])

    async def refused(self, status, asked):
        """What the client raises for `asked`, which must be refused with `status`."""
        with self.assertRaises(KongResponseError) as raised:
            await asked
        self.assertEqual(raised.exception.status, status, raised.exception)
        self.assertEqual(raised.exception.message["response_status"], status)
        return raised.exception.message

    async def test_a_service_comes_back_with_all_its_fields(self):
        service = await self.cli.services.create(name="test", host="example.upstream", port=8080)
        self.assertEqual((service.name, service.host, service.protocol), ("test", "example.upstream", "http"))
        uuid.UUID(service.id)
        self.assertIs(service.routes.root, service)
        self.assertEqual(service["created_at"], service["updated_at"])
        fields = {k: v for k, v in service.items() if k not in ("id", "created_at", "updated_at")}
        expected = {"name": "test", "host": "example.upstream", "port": 8080, "protocol": "http"}
        expected |= {"path": None, "retries": 5, "enabled": True, "tags": None}
        expected |= {"connect_timeout": 60000, "read_timeout": 60000, "write_timeout": 60000}
        expected |= {"client_certificate": None, "ca_certificates": None}
        expected |= {"tls_verify": None, "tls_verify_depth": None, "tls_sans": None}
        fields.setdefault("tls_sans", None)  # Only of the newest Kongs.
        self.assertEqual(fields, expected)
        self.assertEqual(dict(await self.cli.services.get("test")), dict(service))
        self.assertEqual(dict(await self.cli.services.get(service.id)), dict(service))
        self.assertEqual(dict(await self.cli.services.get(uuid.UUID(service.id))), dict(service))

    async def test_a_service_needs_no_name_and_may_be_given_as_a_url(self):
        service = await self.cli.services.create(url="https://example.upstream/base")
        self.assertEqual((service.name, service["name"]), ("", None))
        self.assertEqual((service["port"], service["path"]), (443, "/base"))
        self.assertNotIn("url", service)

    async def test_an_update_changes_what_it_names(self):
        service = await self.cli.services.create(name="test", host="one.upstream", port=8080, tags=["a"])
        changed = await self.cli.services.update("test", host="two.upstream", tags=None)
        self.assertEqual(settled(changed), settled(service) | {"host": "two.upstream", "tags": None})
        changed = await self.cli.services.update(service.id, name="renamed")
        self.assertEqual(changed.id, service.id)
        self.assertFalse(await self.cli.services.has("test"))
        self.assertTrue(await self.cli.services.has("renamed"))

    async def test_routes_belong_to_their_service_and_are_deleted_with_it(self):
        service = await self.cli.services.create(name="test", host="example.upstream")
        self.assertEqual(await service.routes.get_list(), [])
        route = await service.routes.create(hosts=["example.com"])
        self.assertEqual(route["service"], {"id": service.id})
        self.assertEqual(route["protocols"], ["http", "https"])
        self.assertEqual((route["strip_path"], route["preserve_host"]), (True, False))
        self.assertEqual((route["paths"], route["headers"], route["regex_priority"]), (None, None, 0))
        other = await self.cli.routes.create(name="apart", paths=["/apart"])
        self.assertIsNone(other["service"])
        self.assertEqual([r.id for r in await service.routes.get_list()], [route.id])
        self.assertEqual({r.id for r in await self.cli.routes.get_list()}, {route.id, other.id})
        self.assertEqual(dict(await service.routes.get(route.id)), dict(route))
        self.assertTrue(await self.cli.services.delete("test"))
        self.assertEqual([r.name for r in await self.cli.routes.get_list()], ["apart"])
        self.assertTrue(await self.cli.routes.delete("apart"))

    async def test_plugins_are_filled_with_their_defaults_in_every_scope(self):
        service = await self.cli.services.create(name="test", host="example.upstream")
        route = await service.routes.create(name="test", paths=["/"])
        consumer = await self.cli.consumers.create(username="anna")
        everywhere = await self.cli.plugins.create(name="cors")
        self.assertEqual((everywhere["service"], everywhere["route"], everywhere["consumer"]), (None,) * 3)
        self.assertEqual(everywhere["protocols"], ["grpc", "grpcs", "http", "https"])
        self.assertEqual((everywhere["enabled"], everywhere["instance_name"]), (True, None))
        self.assertFalse(everywhere["config"]["credentials"])
        for owner, key in ((service, "service"), (route, "route"), (consumer, "consumer")):
            plugin = await owner.plugins.create(name="rate-limiting", config={"minute": 5})
            self.assertEqual(plugin[key], {"id": owner.id})
            self.assertEqual(plugin["config"]["policy"], "local")
            self.assertEqual([p.id for p in await owner.plugins.get_list()], [plugin.id])
            patched = await owner.plugins.update(plugin.id, config={"minute": 6})
            self.assertEqual(patched["config"], plugin["config"] | {"minute": 6})
        self.assertEqual(len(await self.cli.plugins.get_full_list(size=1)), 4)
        message = await self.refused(409, service.plugins.create(name="rate-limiting", config={"minute": 1}))
        self.assertEqual(message["code"], 5)
        anonymous = await route.plugins.create(name="key-auth", config={"anonymous": "anna"})
        self.assertEqual(anonymous["config"]["anonymous"], consumer.id)
        self.assertTrue(await route.plugins.delete(anonymous.id))

    async def test_consumers_are_found_by_name_id_and_custom_id(self):
        consumer = await self.cli.consumers.create(username="anna", custom_id="7")
        self.assertEqual((consumer.username, consumer["custom_id"], consumer["tags"]), ("anna", "7", None))
        self.assertEqual((await self.cli.consumers.get("anna")).id, consumer.id)
        self.assertEqual((await self.cli.consumers.get(consumer.id)).id, consumer.id)
        self.assertEqual([c.id for c in await self.cli.consumers.get_list(custom_id="7")], [consumer.id])
        self.assertIsNone((await self.cli.consumers.create(username="bert")).get("custom_id"))

    async def test_jwt_secrets_are_made_up_and_kept(self):
        consumer = await self.cli.consumers.create(username="anna")
        jwt = await consumer.jwts.create()
        self.assertEqual((jwt["consumer"], jwt["algorithm"]), ({"id": consumer.id}, "HS256"))
        self.assertEqual((len(jwt["key"]), len(jwt["secret"])), (32, 32))
        self.assertEqual([j.data for j in await consumer.jwts.get_list()], [jwt.data])
        self.assertEqual((await consumer.jwts.get(jwt.id)).data, jwt.data)
        self.assertEqual((await consumer.jwts.get(jwt["key"])).data, jwt.data)
        self.assertEqual((await consumer.jwts.get_or_create()).data, jwt.data)
        changed = await consumer.jwts.update(jwt.id, tags=["new"])
        self.assertEqual(changed.data, jwt.data | {"tags": ["new"]})
        self.assertTrue(await consumer.jwts.delete(jwt.id))
        await self.refused(404, consumer.jwts.delete(jwt.id))
        self.assertNotEqual((await consumer.jwts.get_or_create()).id, jwt.id)

    async def test_keys_and_passwords_are_written_as_forms(self):
        consumer = await self.cli.consumers.create(username="anna")
        auth = await consumer.keyauths.create()
        self.assertEqual((auth["consumer"], len(auth["key"]), auth["ttl"]), ({"id": consumer.id}, 32, None))
        given = await consumer.keyauths.create_credentials(data={"key": "a b&c=é"})
        self.assertEqual(given["key"], "a b&c=é")
        again = await consumer.keyauths.create_or_update_credentials({"key": "a b&c=é"})
        self.assertEqual(again.id, given.id)
        self.assertTrue(await consumer.keyauths.delete(auth.id))
        await self.refused(404, consumer.keyauths.delete(auth.id))
        basic = await consumer.basicauths.create_credentials(data={"username": "anna", "password": "p"})
        self.assertEqual(basic["username"], "anna")
        self.assertNotEqual(basic["password"], "p")
        changed = await consumer.basicauths.create_or_update_credentials({"username": "anna", "password": "q"})
        self.assertEqual(changed.id, basic.id)
        self.assertNotEqual(changed["password"], basic["password"])
        message = await self.refused(409, consumer.keyauths.create(key="a b&c=é"))
        self.assertEqual(message["fields"], {"key": "a b&c=é"})
        self.assertEqual(len(await consumer.keyauths.get_list()), 1)

    async def test_groups_are_listed_by_consumer_and_all_together_page_by_page(self):
        wanted = {"anna": ["one", "two"], "bert": ["two"], "carl": ["three"]}
        for name, groups in wanted.items():
            consumer = await self.cli.consumers.create(username=name)
            for group in groups:
                acl = await consumer.acls.create(group=group)
                self.assertEqual((acl["group"], acl["consumer"]), (group, {"id": consumer.id}))
        anna = await self.cli.consumers.get("anna")
        self.assertEqual(len([acl async for acl in self.cli.acls.paginate(size=1)]), 4)
        self.assertEqual({acl["group"] async for acl in anna.acls.paginate(size=1)}, {"one", "two"})
        await self.refused(409, anna.acls.create(group="one"))

    async def test_long_lists_come_in_pages_without_loss_or_repetition(self):
        made = {(await self.cli.consumers.create(username=f"u{n}", tags=["t"])).id for n in range(205)}
        self.assertEqual(len(await self.cli.consumers.get_list()), 100)
        self.assertEqual(len(await self.cli.consumers.get_list(size=7)), 7)
        for params in ({}, {"size": 50}, {"size": 1000}, {"tags": "t"}, {"tags": "t", "size": 60}):
            found = [c.id for c in await self.cli.consumers.get_full_list(**params)]
            self.assertEqual((len(found), set(found)), (205, made), params)
        self.assertEqual(await self.cli.consumers.get_full_list(tags="other"), [])
        self.assertEqual(await self.cli.consumers.delete_all(), 205)

    async def test_certificates_and_their_names_are_kept_together(self):
        first = await self.cli.certificates.create(cert=read("cert-1.pem"), key=read("key-1.pem"))
        self.assertEqual((first["snis"], first["cert_alt"], first["tags"]), ([], None, None))
        self.assertEqual((first["cert"], first["key"]), (read("cert-1.pem"), read("key-1.pem")))
        self.assertEqual(await first.snis.get_list(), [])
        second = await self.cli.certificates.create(
            cert=read("cert-2.pem"), key=read("key-2.pem"), snis=["b.example", "a.example"]
        )
        self.assertEqual(second["snis"], ["a.example", "b.example"])
        self.assertEqual({s["name"] for s in await second.snis.get_list()}, {"a.example", "b.example"})
        sni = await first.snis.create(name="c.example")
        self.assertEqual(sni["certificate"], {"id": first.id})
        self.assertEqual((await self.cli.certificates.get(first.id))["snis"], ["c.example"])
        self.assertEqual((await self.cli.certificates.get("c.example")).id, first.id)
        await self.refused(400, self.cli.certificates.create(cert=read("cert-1.pem"), key=read("key-2.pem")))
        self.assertTrue(await self.cli.certificates.delete(second.id))
        self.assertEqual([s["name"] for s in await self.cli.snis.get_list()], ["c.example"])

    async def test_names_are_applied_moved_and_applied_again(self):
        ids = []
        for n in (1, 2):
            made = await self.cli.certificates.create(cert=read(f"cert-{n}.pem"), key=read(f"key-{n}.pem"))
            ids.append(made.id)
        wanted = [
            {"name": "a1.example.com", "certificate": {"id": ids[0]}, "tags": ["foo"]},
            {"name": "a2.example.com", "certificate": {"id": ids[1]}, "tags": ["one", "two"]},
        ]
        for turn in (0, 1, 1):
            wanted[0]["certificate"], wanted[1]["certificate"] = {"id": ids[turn]}, {"id": ids[1 - turn]}
            applied = (await self.cli.apply_json({"snis": wanted}))["snis"]
            bare = [{k: v for k, v in s.items() if not k.endswith("_at") and k != "id"} for s in applied]
            self.assertEqual(bare, wanted)
        found = {s["name"]: s["certificate"] for s in await self.cli.snis.get_list()}
        self.assertEqual(found, {s["name"]: s["certificate"] for s in wanted})

    async def everything(self):
        """All that is configured, without what the client replaces each time (routes and what is on them)."""
        found = {}
        for name in ("services", "plugins", "consumers", "acls"):
            entities = await getattr(self.cli, name).get_full_list()
            found[name] = {e.id: settled(e) for e in entities if not e.get("route")}
        for path in ("key-auths", "basic-auths"):
            data = (await self.cli.execute(f"{URL}/{path}"))["data"]
            # A password is stored anew, hashed: the same one gives the same hash.
            found[path] = {e["id"]: settled(e) for e in data}
        return found

    async def test_a_configuration_applied_twice_is_the_same(self):
        await self.cli.apply_json(yaml.safe_load(MANIFEST))
        before = await self.everything()
        self.assertEqual([len(before[n]) for n in ("services", "consumers", "acls")], [2, 2, 2])
        self.assertEqual([len(before[n]) for n in ("plugins", "key-auths", "basic-auths")], [2, 1, 1])
        await self.cli.apply_json(yaml.safe_load(MANIFEST))
        self.assertEqual(await self.everything(), before)
        shop = await self.cli.services.get("shop")
        (route,) = await shop.routes.get_list()
        self.assertEqual((route["paths"], route["hosts"]), (["/"], ["api.shop.example"]))
        plugins = {p.name: p for p in await route.plugins.get_list()}
        self.assertEqual(set(plugins), {"cors", "jwt", "request-termination"})
        visitor = (await self.cli.consumers.get("visitor")).id
        self.assertEqual(plugins["jwt"]["config"]["anonymous"], visitor)
        self.assertEqual(plugins["request-termination"]["consumer"], {"id": visitor})
        self.assertEqual((await self.cli.routes.get("calls"))["protocols"], ["grpc", "grpcs"])
        tagged = await self.cli.services.get_list(tags="public,grpc")
        self.assertEqual([s.name for s in tagged], ["calls"])

    async def test_what_a_configuration_leaves_out_is_removed(self):
        await self.cli.apply_json(yaml.safe_load(MANIFEST))
        less = yaml.safe_load(MANIFEST)
        shop, calls = less["services"]
        del shop["plugins"], less["plugins"]
        shop["routes"][0]["plugins"] = shop["routes"][0]["plugins"][:1]
        less["consumers"][0]["groups"] = ["readers"]
        calls["ensure"] = "absent"
        # Twice: to remove what is not there is no mistake.
        for _ in range(2):
            await self.cli.apply_json(less)
            await self.cli.apply_json({"plugins": []})
            self.assertEqual([s.name for s in await self.cli.services.get_list()], ["shop"])
            self.assertEqual([p.name for p in await self.cli.plugins.get_list()], ["cors"])
            self.assertEqual([a["group"] for a in await self.cli.acls.get_list()], ["readers"])

    async def test_what_is_not_there_is_told_as_404(self):
        for component in (self.cli.services, self.cli.routes, self.cli.consumers, self.cli.snis):
            message = await self.refused(404, component.get("nobody"))
            self.assertEqual(message["message"], "Not found")
            self.assertFalse(await component.has("nobody"))
            self.assertFalse(await component.has(uuid.uuid4()))
        for component in (self.cli.plugins, self.cli.certificates):
            await self.refused(404, component.get(str(uuid.uuid4())))
        await self.refused(404, self.cli.services.update("nobody", host="h"))
        await self.refused(404, self.cli.services.delete("nobody"))
        # Deleting twice is no mistake, unless the parent is missing.
        self.assertTrue(await self.cli.consumers.delete("nobody"))
        await self.refused(404, self.cli.execute(f"{URL}/no/such/path"))

    async def test_what_there_is_already_is_told_as_409(self):
        await self.cli.services.create(name="test", host="h")
        message = await self.refused(409, self.cli.services.create(name="test", host="h"))
        self.assertEqual((message["code"], message["name"]), (5, "unique constraint violation"))
        self.assertEqual(message["fields"], {"name": "test"})
        self.assertIn('{name="test"}', message["message"])
        await self.cli.consumers.create(username="anna")
        await self.refused(409, self.cli.consumers.create(username="anna"))

    async def test_mistakes_are_told_as_400_with_their_fields(self):
        asked = self.cli.services.create(ensure="remove", host="h", port="no", retries=-1)
        message = await self.refused(400, asked)
        self.assertEqual((message["code"], message["name"]), (2, "schema violation"))
        self.assertTrue(message["message"].startswith("3 schema violations ("), message)
        expected = {"ensure": "unknown field", "port": "expected an integer"}
        self.assertEqual(message["fields"], expected | {"retries": "value should be between 0 and 32767"})
        message = await self.refused(400, self.cli.plugins.create(name="no-such-plugin"))
        self.assertIn("not enabled", message["fields"]["name"])
        message = await self.refused(400, self.cli.apply_json({"plugins": [{"name": "cors", "config": "text"}]}))
        self.assertEqual(message["fields"], {"config": "expected a record"})
        message = await self.refused(400, self.cli.routes.create(name="empty"))
        self.assertIn("@entity", message["fields"])
        missing = {"id": str(uuid.uuid4())}
        message = await self.refused(400, self.cli.routes.create(paths=["/"], service=missing))
        self.assertEqual((message["code"], message["fields"]), (4, {"service": missing}))
        await self.refused(400, self.cli.services.get_list(size=0))
        await self.refused(400, self.cli.services.get_list(size="many"))
        with self.assertRaises(KongError):
            await self.cli.apply_json([])
        with self.assertRaises(KongError):
            await self.cli.apply_json({"plugins": {"config": {}}})


class CommandLine(unittest.TestCase):
    """The client's command, kongfig."""

    def run_command(self, *arguments, status=0):
        done = CliRunner().invoke(kongfig, [*arguments, "--url", URL], catch_exceptions=False)
        self.assertEqual(done.exit_code, status, done.output)
        return done.output

    def test_a_file_is_applied_and_shown(self):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(MANIFEST)
            file.flush()
            for _ in range(2):
                applied = yaml.safe_load(self.run_command("yaml", file.name, "--clear"))
                self.assertEqual([s["name"] for s in applied["services"]], ["shop", "calls"])
        names = [s["name"] for s in yaml.safe_load(self.run_command("services", "--json"))]
        self.assertEqual(sorted(names), ["calls", "shop"])
        self.assertEqual(len(yaml.safe_load(self.run_command("routes", "shop", "--json"))), 1)
        self.assertEqual(len(yaml.safe_load(self.run_command("consumers", "--json"))), 2)
        for table in ("services", "consumers"):
            self.run_command(table)
        keys = {yaml.safe_load(self.run_command("key-auth", "visitor"))["key"] for _ in range(2)}
        self.assertEqual(len(keys), 1)
        self.run_command("key-auth", "nobody", status=1)
        self.run_command("services", "--delete", "calls")
        self.run_command("services", "--delete", "calls", status=1)


if __name__ == "__main__":
    signal.alarm(TIME_SECONDS_MAX)
    unittest.main(verbosity=2)
