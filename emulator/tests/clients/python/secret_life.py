"""azure-keyvault-secrets, and the asynchronous clients of all three packages."""

import asyncio
import datetime
import hashlib
import json
import os

# aiohttp does not know the variables that `requests` knows.
os.environ["SSL_CERT_FILE"] = os.environ["REQUESTS_CA_BUNDLE"]

from azure.core.exceptions import (
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.identity import CertificateCredential
from azure.identity.aio import ClientSecretCredential
from azure.keyvault.certificates import CertificatePolicy
from azure.keyvault.certificates.aio import CertificateClient
from azure.keyvault.keys.aio import KeyClient
from azure.keyvault.keys.crypto import SignatureAlgorithm
from azure.keyvault.keys.crypto.aio import CryptographyClient
from azure.keyvault.secrets import SecretClient
from azure.keyvault.secrets import aio

from support import HSM, SOON, TENANT, VAULT, credential, refused, stranger

NOW = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
DAY = datetime.timedelta(days=1)


def life(secrets):
    first = secrets.set_secret("s", "first")
    second = secrets.set_secret(
        "s",
        "zweite \N{SNOWMAN}",
        tags={"a": "b"},
        content_type="text/plain",
        enabled=True,
        not_before=NOW - DAY,
        expires_on=NOW + DAY,
    )
    got = secrets.get_secret("s")
    assert (got.id, got.value) == (second.id, "zweite \N{SNOWMAN}")
    assert got.properties.tags == {"a": "b"} and got.properties.content_type == "text/plain"
    assert (got.properties.not_before, got.properties.expires_on) == (NOW - DAY, NOW + DAY)
    assert secrets.get_secret("s", first.properties.version).value == "first"
    versions = {item.version for item in secrets.list_properties_of_secret_versions("s")}
    assert versions == {first.properties.version, second.properties.version}
    assert "s" in [item.name for item in secrets.list_properties_of_secrets()]
    version = first.properties.version
    changed = secrets.update_secret_properties("s", version, enabled=False, content_type="x/y")
    assert not changed.enabled and changed.content_type == "x/y"
    with refused(HttpResponseError, 403, "Forbidden", "SecretDisabled"):
        secrets.get_secret("s", version)
    for missing in (("none",), ("s", "0" * 32)):
        with refused(ResourceNotFoundError, 404, "SecretNotFound"):
            secrets.get_secret(*missing)
    secrets.set_secret("longest", "x" * 25 * 1024)
    with refused(HttpResponseError, 400, "BadParameter"):
        secrets.set_secret("too-long", "x" * (25 * 1024 + 1))

    deleted = secrets.begin_delete_secret("s", **SOON)
    deleted.wait()
    assert deleted.result().recovery_id.endswith("/deletedsecrets/s")
    with refused(ResourceNotFoundError, 404, "SecretNotFound"):
        secrets.get_secret("s")
    with refused(ResourceExistsError, 409, "Conflict", "ObjectIsDeletedButRecoverable"):
        secrets.set_secret("s", "again")
    assert secrets.get_deleted_secret("s").scheduled_purge_date
    assert "s" in [item.name for item in secrets.list_deleted_secrets()]
    secrets.begin_recover_deleted_secret("s", **SOON).wait()
    assert secrets.get_secret("s").id == second.id
    backup = secrets.backup_secret("s")
    with refused(ResourceExistsError, 409, "Conflict"):
        secrets.restore_secret_backup(backup)
    secrets.begin_delete_secret("s", **SOON).wait()
    secrets.purge_deleted_secret("s")
    with refused(ResourceNotFoundError, 404, "SecretNotFound"):
        secrets.get_deleted_secret("s")
    secrets.restore_secret_backup(backup)
    assert secrets.get_secret("s").value == second.value
    with refused(HttpResponseError, 403, "Forbidden", "ForbiddenByPolicy"):
        SecretClient(VAULT, stranger).get_secret("s")


async def asynchronous():
    variables = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")
    async with ClientSecretCredential(*(os.environ[name] for name in variables)) as credential:
        for url in (VAULT, HSM):
            async with KeyClient(url, credential) as keys:
                key = await keys.create_rsa_key("aio")
                digest = hashlib.sha256(b"What is signed.").digest()
                algorithm = SignatureAlgorithm.ps256
                async with CryptographyClient(key.id, credential) as use:
                    made = await use.sign(algorithm, digest)
                    assert (await use.verify(algorithm, digest, made.signature)).is_valid
                assert "aio" in [item.name async for item in keys.list_properties_of_keys()]
                await keys.delete_key("aio", **SOON)
                recovered = await keys.recover_deleted_key("aio", **SOON)
                assert recovered.id == key.id
                with refused(ResourceNotFoundError, 404, "KeyNotFound"):
                    await keys.get_key("none")
        async with aio.SecretClient(VAULT, credential) as secrets:
            await secrets.set_secret("aio-secret", "value")
            assert (await secrets.get_secret("aio-secret")).value == "value"
        async with CertificateClient(VAULT, credential) as certificates:
            policy = CertificatePolicy.get_default()
            made = await certificates.create_certificate("aio-certificate", policy, **SOON)
            got = await certificates.get_certificate("aio-certificate")
            assert bytes(got.cer) == bytes(made.cer)


def by_certificate():
    """The client proves itself by its certificate instead of a secret."""
    with open(os.environ["AKV_EMULATOR_READY"], encoding="utf-8") as file:
        ready = json.load(file)
    client = CertificateCredential(TENANT, ready["client_id"], ready["client_certificate"])
    assert SecretClient(VAULT, client).get_secret("aio-secret").value == "value"


life(SecretClient(VAULT, credential))
asyncio.run(asynchronous())
by_certificate()
