"""azure-keyvault-keys: everything about keys but their use."""

import base64
import datetime
import json
import os
import urllib.request

from azure.core.exceptions import (
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.keyvault.keys import (
    ApiVersion,
    JsonWebKey,
    KeyClient,
    KeyReleasePolicy,
    KeyRotationLifetimeAction,
    KeyRotationPolicy,
    KeyRotationPolicyAction,
    KeyVaultKeyIdentifier,
)
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from support import HSM, SOON, VAULT, credential, refused, stranger

NOW = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
DAY = datetime.timedelta(days=1)


def creation(keys, hsm):
    suffix = "-HSM" if hsm else ""
    key = keys.create_rsa_key("rsa")
    assert key.key_type == f"RSA{suffix}" and len(key.key.n) in (256, 257)
    assert int.from_bytes(key.key.e, "big") == 65537
    six = {"encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"}
    assert six == set(key.key_operations), key.key_operations
    named = KeyVaultKeyIdentifier(key.id)
    assert (named.name, named.version) == ("rsa", key.properties.version)
    assert key.properties.vault_url == keys.vault_url and key.properties.enabled

    for size in (2048, 3072, 4096):
        key = keys.create_rsa_key(f"rsa{size}", size=size, hardware_protected=True)
        assert key.key_type == "RSA-HSM"
        assert int.from_bytes(key.key.n, "big").bit_length() == size
    for curve, length in {"P-256": 32, "P-384": 48, "P-521": 66, "P-256K": 32}.items():
        for hardware in (False, True):
            key = keys.create_ec_key("ec", curve=curve, hardware_protected=hardware)
            assert key.key_type == ("EC-HSM" if hsm or hardware else "EC"), key.key_type
            assert key.key.crv == curve and len(key.key.x) == len(key.key.y) == length
            assert set(key.key_operations) == {"sign", "verify"}
    for size in (128, 192, 256):
        if hsm:
            key = keys.create_oct_key("oct", size=size, hardware_protected=True)
            assert key.key_type == "oct-HSM" and key.key.k is None
        else:
            with refused(HttpResponseError, 400, "BadParameter"):
                keys.create_oct_key("oct", size=size)

    key = keys.create_rsa_key(
        "options",
        size=2048,
        key_operations=["sign", "verify"],
        enabled=True,
        not_before=NOW - DAY,
        expires_on=NOW + 30 * DAY,
        tags={"purpose": "test", "empty": ""},
    )
    assert set(key.key_operations) == {"sign", "verify"}
    properties = key.properties
    assert (properties.not_before, properties.expires_on) == (NOW - DAY, NOW + 30 * DAY)
    assert properties.tags == {"purpose": "test", "empty": ""}
    assert abs(properties.created_on - NOW) < DAY and properties.updated_on
    assert properties.recoverable_days == 7
    assert properties.recovery_level == "CustomizedRecoverable+Purgeable"
    assert (properties.hsm_platform is None) == hsm, properties.hsm_platform
    if not hsm:
        # Managed HSMs take it as it is; a vault has keys of one exponent.
        with refused(HttpResponseError, 400, "BadParameter"):
            keys.create_rsa_key("even", public_exponent=4)
    with refused(HttpResponseError, 400, "BadParameter"):
        keys.create_rsa_key("odd", size=2049)
    with refused(HttpResponseError, 400, "BadParameter"):
        keys.create_key("odd", "DSA")


def reading(keys, hsm):
    first = keys.create_ec_key("read")
    second = keys.create_ec_key("read")
    assert keys.get_key("read").id == second.id
    assert keys.get_key("read", first.properties.version).key.x == first.key.x
    versions = {item.version for item in keys.list_properties_of_key_versions("read")}
    assert versions == {first.properties.version, second.properties.version}
    listed = {item.name: item for item in keys.list_properties_of_keys(max_page_size=2)}
    assert {"rsa", "rsa4096", "ec", "options", "read"} <= set(listed)
    assert listed["options"].tags == {"purpose": "test", "empty": ""}
    assert listed["read"].version is None
    pages = list(keys.list_properties_of_keys(max_page_size=2).by_page())
    assert len(pages) > 2 and all(len(list(page)) <= 2 for page in pages)
    for missing in (lambda: keys.get_key("none"), lambda: keys.get_key("read", "0" * 32)):
        with refused(ResourceNotFoundError, 404, "KeyNotFound"):
            missing()
    assert list(keys.list_properties_of_key_versions("none")) == []


def updating(keys):
    first = keys.create_rsa_key("update")
    version = first.properties.version
    keys.create_rsa_key("update")
    changed = keys.update_key_properties(
        "update",
        version,
        key_operations=["decrypt", "encrypt"],
        enabled=False,
        not_before=NOW - DAY,
        expires_on=NOW + DAY,
        tags={"a": "b"},
    )
    assert changed.id == first.id
    assert set(changed.key_operations) == {"decrypt", "encrypt"}
    properties = keys.get_key("update", version).properties
    assert not properties.enabled and properties.tags == {"a": "b"}
    assert (properties.not_before, properties.expires_on) == (NOW - DAY, NOW + DAY)
    # Only what is named changes; without a version it is the current one.
    again = keys.update_key_properties("update", version, enabled=True)
    assert again.properties.enabled and again.properties.tags == {"a": "b"}
    assert set(again.key_operations) == {"decrypt", "encrypt"}
    current = keys.update_key_properties("update", tags={"c": "d"})
    assert current.properties.version != version and current.properties.tags == {"c": "d"}
    with refused(ResourceNotFoundError, 404, "KeyNotFound"):
        keys.update_key_properties("none", enabled=False)


def rotation(keys, hsm):
    first = keys.create_rsa_key("rotate", tags={"kept": "yes"})
    rotated = keys.rotate_key("rotate")
    assert rotated.id != first.id and rotated.key.n != first.key.n
    assert rotated.key_type == first.key_type and rotated.properties.tags == {"kept": "yes"}
    if not hsm:
        # What a vault says of a key that nobody gave a policy.
        untouched = keys.get_key_rotation_policy("rotate")
        assert untouched.expires_in is None
        assert [action.action for action in untouched.lifetime_actions] == ["Notify"]
    action = KeyRotationLifetimeAction(KeyRotationPolicyAction.rotate, time_after_create="P2M")
    policy = KeyRotationPolicy(expires_in="P90D", lifetime_actions=[action])
    set_ = keys.update_key_rotation_policy("rotate", policy)
    got = keys.get_key_rotation_policy("rotate")
    for answer in (set_, got):
        assert answer.expires_in == "P90D" and answer.created_on and answer.updated_on
        rotate = [a for a in answer.lifetime_actions if a.action.lower() == "rotate"]
        assert [a.time_after_create for a in rotate] == ["P2M"], answer.lifetime_actions
    # The next version lives as long as the policy says.
    until = keys.rotate_key("rotate").properties.expires_on
    assert abs(until - (NOW + 90 * DAY)) < DAY, until
    before = KeyRotationLifetimeAction(KeyRotationPolicyAction.rotate, time_before_expiry="P30D")
    changed = keys.update_key_rotation_policy(
        "rotate", KeyRotationPolicy(), lifetime_actions=[before], expires_in="P1Y"
    )
    assert changed.expires_in == "P1Y"
    assert "P30D" in [a.time_before_expiry for a in changed.lifetime_actions]
    with refused(HttpResponseError, 400, "BadParameter"):
        keys.update_key_rotation_policy("rotate", KeyRotationPolicy(expires_in="ninety days"))
    with refused(ResourceNotFoundError, 404, "KeyNotFound"):
        keys.rotate_key("none")


def deletion(keys):
    key = keys.create_ec_key("delete", tags={"a": "b"})
    poller = keys.begin_delete_key("delete", **SOON)
    deleted = poller.result()
    assert deleted.id == key.id and deleted.recovery_id.endswith("/deletedkeys/delete")
    assert deleted.scheduled_purge_date - deleted.deleted_date == 7 * DAY
    poller.wait()
    assert poller.status().lower() == "finished", poller.status()
    with refused(ResourceNotFoundError, 404, "KeyNotFound"):
        keys.get_key("delete")
    with refused(ResourceExistsError, 409, "Conflict"):
        keys.create_ec_key("delete")
    assert keys.get_deleted_key("delete").properties.tags == {"a": "b"}
    assert "delete" in [item.name for item in keys.list_deleted_keys()]
    poller = keys.begin_recover_deleted_key("delete", **SOON)
    assert poller.result().id == key.id
    poller.wait()
    assert keys.get_key("delete").id == key.id
    keys.begin_delete_key("delete", **SOON).wait()
    keys.purge_deleted_key("delete")
    for call in (keys.get_deleted_key, keys.purge_deleted_key, keys.begin_recover_deleted_key):
        with refused(ResourceNotFoundError, 404, "KeyNotFound"):
            call("delete")
    with refused(ResourceNotFoundError, 404, "KeyNotFound"):
        keys.begin_delete_key("none")


def backups(keys):
    first = keys.create_rsa_key("backup")
    keys.create_rsa_key("backup")
    backup = keys.backup_key("backup")
    with refused(ResourceExistsError, 409, "Conflict"):
        keys.restore_key_backup(backup)
    keys.begin_delete_key("backup", **SOON).wait()
    keys.purge_deleted_key("backup")
    restored = keys.restore_key_backup(backup)
    assert restored.name == "backup"
    assert keys.get_key("backup", first.properties.version).key.n == first.key.n
    assert len(list(keys.list_properties_of_key_versions("backup"))) == 2
    with refused(ResourceNotFoundError, 404, "KeyNotFound"):
        keys.backup_key("none")
    try:
        keys.restore_key_backup(b"no backup at all")
        raise AssertionError("restored from nothing")
    except HttpResponseError as refusal:
        assert refusal.status_code == 400, refusal


def octets(number, length=None):
    return number.to_bytes(length or (number.bit_length() + 7) // 8, "big")


def imports(keys, hsm):
    made = rsa.generate_private_key(65537, 2048)
    numbers, public = made.private_numbers(), made.public_key().public_numbers()
    jwk = JsonWebKey(
        kty="RSA",
        key_ops=["sign", "verify"],
        n=octets(public.n),
        e=octets(public.e),
        d=octets(numbers.d),
        p=octets(numbers.p),
        q=octets(numbers.q),
        dp=octets(numbers.dmp1),
        dq=octets(numbers.dmq1),
        qi=octets(numbers.iqmp),
    )
    for hardware in (False, True) if not hsm else (True,):
        name = f"import-rsa-{hardware}"
        key = keys.import_key(name, jwk, hardware_protected=hardware, tags={"a": "b"})
        assert key.key_type == ("RSA-HSM" if hardware else "RSA"), key.key_type
        assert int.from_bytes(key.key.n, "big") == public.n and key.key.d is None
        assert set(key.key_operations) == {"sign", "verify"}
        assert key.properties.tags == {"a": "b"}

    made = ec.generate_private_key(ec.SECP384R1())
    secret, public = made.private_numbers(), made.public_key().public_numbers()
    point = {"x": octets(public.x, 48), "y": octets(public.y, 48)}
    jwk = JsonWebKey(kty="EC", crv="P-384", d=octets(secret.private_value, 48), **point)
    key = keys.import_key("import-ec", jwk, enabled=True, expires_on=NOW + DAY)
    assert (key.key.crv, key.key.x, key.key.y) == ("P-384", *point.values())
    assert key.properties.expires_on == NOW + DAY

    jwk = JsonWebKey(kty="oct-HSM", k=os.urandom(32), key_ops=["wrapKey", "unwrapKey"])
    if hsm:
        assert keys.import_key("import-oct", jwk).key_type == "oct-HSM"
    else:
        with refused(HttpResponseError, 400, "BadParameter"):
            keys.import_key("import-oct", jwk)
    with refused(HttpResponseError, 400, "BadParameter"):
        keys.import_key("import-half", JsonWebKey(kty="EC", crv="P-384", x=point["x"]))


def release(keys):
    authority = "https://sharedeus.eus.attest.azure.net"
    claim = {"claim": "x-ms-test", "equals": "true"}
    policy = {"version": "1.0.0", "anyOf": [{"authority": authority, "allOf": [claim]}]}
    policy = KeyReleasePolicy(encoded_policy=json.dumps(policy).encode(), immutable=False)
    key = keys.create_rsa_key(
        "release", hardware_protected=True, exportable=True, release_policy=policy
    )
    assert key.properties.exportable and key.properties.release_policy
    got = keys.get_key("release").properties.release_policy
    assert json.loads(got.encoded_policy)["anyOf"][0]["authority"] == authority
    assert got.content_type == "application/json; charset=utf-8" and not got.immutable

    def attested(**claims):
        claims = json.dumps({"iss": authority, **claims}).encode()
        url = os.environ["AKV_EMULATOR_CONTROL"] + "/attest"
        with urllib.request.urlopen(urllib.request.Request(url, claims, method="POST")) as answer:
            return json.load(answer)["token"]

    recipient = rsa.generate_private_key(65537, 2048).public_key().public_numbers()
    text = lambda number: base64.urlsafe_b64encode(octets(number)).rstrip(b"=").decode()
    jwk = {"kty": "RSA", "kid": "r", "n": text(recipient.n), "e": text(recipient.e)}
    runtime = {"x-ms-runtime": {"keys": [{**jwk, "key_ops": ["encrypt"]}]}}
    token = attested(**{"x-ms-test": "true"}, **runtime)
    for algorithm in ("CKM_RSA_AES_KEY_WRAP", "RSA_AES_KEY_WRAP_256", "RSA_AES_KEY_WRAP_384", None):
        released = keys.release_key("release", token, algorithm=algorithm, nonce="n").value
        payload = released.split(".")[1]
        payload = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        assert payload["response"]["key"]["key"]["kid"] == key.id, payload
    token = attested(**{"x-ms-test": "false"}, **runtime)
    with refused(HttpResponseError, 400, "BadParameter"):
        keys.release_key("release", token)


def only_here(keys, hsm):
    if hsm:
        for count in (1, 16, 128):
            assert len(keys.get_random_bytes(count)) == count
        with refused(HttpResponseError, 400, "BadParameter"):
            keys.get_random_bytes(129)
    else:
        with refused(ResourceNotFoundError, 404, "NotFound"):
            keys.get_random_bytes(1)
        keys.create_rsa_key("software")
        with refused(HttpResponseError, 400, "BadParameter"):
            keys.get_key_attestation("software")
    attested = keys.get_key_attestation("rsa4096")
    attestation = attested.properties.attestation
    assert attested.key.n == keys.get_key("rsa4096").key.n
    assert b"BEGIN CERTIFICATE" in attestation.certificate_pem_file
    assert attestation.private_key_attestation and attestation.public_key_attestation


def permission(url, hsm):
    strange = KeyClient(url, stranger)
    code = "AccessDenied" if hsm else "Forbidden"
    for call in (
        lambda: strange.get_key("rsa"),
        lambda: list(strange.list_properties_of_keys()),
        lambda: strange.create_ec_key("mine"),
        lambda: strange.begin_delete_key("rsa"),
    ):
        with refused(HttpResponseError, 403, code, None if hsm else "ForbiddenByPolicy"):
            call()


for url in (VAULT, HSM):
    hsm = url == HSM
    keys = KeyClient(url, credential)
    for check in (creation, reading, rotation, imports, only_here):
        print(url, check.__name__, flush=True)
        check(keys, hsm)
    for check in (updating, deletion, backups, release):
        print(url, check.__name__, flush=True)
        check(keys)
    permission(url, hsm)
    # Every version that the package speaks.
    for version in ApiVersion:
        if hsm and version.value < "7.2":
            continue
        with KeyClient(url, credential, api_version=version) as old:
            assert old.create_ec_key("old").id == old.get_key("old").id, version
