"""azure-keyvault-certificates: certificates of a vault, which are keys and secrets, too."""

import base64
import datetime

from azure.core.exceptions import (
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.keyvault.certificates import (
    CertificateClient,
    CertificateContentType,
    CertificatePolicy,
    CertificatePolicyAction,
    KeyUsageType,
    LifetimeAction,
    WellKnownIssuerNames,
)
from azure.keyvault.keys import KeyClient
from azure.keyvault.keys.crypto import CryptographyClient, SignatureAlgorithm
from azure.keyvault.secrets import SecretClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

from support import SOON, VAULT, credential, pkcs11, pkcs11_file, pkcs11_id, refused, stranger

NOW = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
DAY = datetime.timedelta(days=1)
DATA = b"What is signed."

certificates = CertificateClient(VAULT, credential)
keys = KeyClient(VAULT, credential)
secrets = SecretClient(VAULT, credential)


def common_name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def signed(subject, public, issuer, key):
    """A certificate of ours, for importing and merging."""
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    builder = builder.public_key(public).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(NOW - DAY).not_valid_after(NOW + 90 * DAY)
    return builder.sign(key, hashes.SHA256())


def self_signed():
    policy = CertificatePolicy(
        issuer_name=WellKnownIssuerNames.self,
        subject="CN=self,O=Contoso",
        san_dns_names=["a.example", "b.example"],
        enhanced_key_usage=["1.3.6.1.5.5.7.3.1"],
        key_usage=[KeyUsageType.digital_signature, KeyUsageType.key_encipherment],
        key_type="RSA",
        key_size=2048,
        exportable=True,
        reuse_key=False,
        content_type=CertificateContentType.pkcs12,
        validity_in_months=6,
        lifetime_actions=[
            LifetimeAction(CertificatePolicyAction.auto_renew, days_before_expiry=30)
        ],
    )
    poller = certificates.begin_create_certificate("self", policy, tags={"a": "b"}, **SOON)
    made = poller.result()
    assert poller.status() == "completed", poller.status()
    operation = certificates.get_certificate_operation("self")
    assert operation.status == "completed" and operation.issuer_name == "Self"
    assert made.name == "self" and made.properties.tags == {"a": "b"}
    leaf = x509.load_der_x509_certificate(bytes(made.cer))
    assert leaf.subject.rfc4514_string() in ("CN=self,O=Contoso", "O=Contoso,CN=self")
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.example", "b.example"]
    assert made.properties.x509_thumbprint == leaf.fingerprint(hashes.SHA1())
    lifetime = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    assert 175 * DAY < lifetime < 190 * DAY, lifetime
    shown = certificates.get_certificate_policy("self")
    assert shown.issuer_name == "Self" and shown.key_size == 2048 and shown.exportable
    assert shown.lifetime_actions[0].action == "AutoRenew"
    assert shown.lifetime_actions[0].days_before_expiry == 30

    # The same key and the same secret.
    key = keys.get_key("self", made.properties.version)
    assert made.key_id == key.id and key.properties.managed
    pfx = base64.b64decode(secrets.get_secret("self", made.properties.version).value)
    private, inside, _ = pkcs12.load_key_and_certificates(pfx, None)
    assert inside == leaf
    public = leaf.public_key()
    assert private.public_key().public_numbers() == public.public_numbers()
    # It signs through PKCS#11, where the certificate is an object, too.
    listed = pkcs11(VAULT, "-O", "--type", "cert")
    assert "self" in listed, listed
    at = pkcs11_id(VAULT, "self")
    signature = pkcs11_file(VAULT, DATA, "--sign", "--id", at, "-m", "SHA256-RSA-PKCS")
    public.verify(signature, DATA, padding.PKCS1v15(), hashes.SHA256())


def elliptic():
    policy = CertificatePolicy(
        WellKnownIssuerNames.self,
        subject="CN=elliptic",
        key_type="EC",
        key_curve_name="P-384",
        exportable=False,
        content_type=CertificateContentType.pem,
    )
    made = certificates.begin_create_certificate("elliptic", policy, **SOON).result()
    leaf = x509.load_der_x509_certificate(bytes(made.cer))
    assert leaf.public_key().curve.name == "secp384r1"
    # What may not be exported is not in the secret.
    text = secrets.get_secret("elliptic").value
    assert "BEGIN CERTIFICATE" in text and "PRIVATE" not in text, text


def imports():
    made = rsa.generate_private_key(65537, 2048)
    leaf = signed(common_name("pfx"), made.public_key(), common_name("pfx"), made)
    sealed = serialization.BestAvailableEncryption(b"password")
    pfx = pkcs12.serialize_key_and_certificates(b"pfx", made, leaf, None, sealed)
    imported = certificates.import_certificate("pfx", pfx, password="password", tags={"a": "b"})
    assert bytes(imported.cer) == leaf.public_bytes(serialization.Encoding.DER)
    assert imported.properties.tags == {"a": "b"}
    assert imported.policy.content_type == "application/x-pkcs12"
    assert imported.properties.expires_on == NOW + 90 * DAY
    signature = CryptographyClient(imported.key_id, credential).sign(
        SignatureAlgorithm.rs256, hash_of(DATA)
    )
    made.public_key().verify(signature.signature, DATA, padding.PKCS1v15(), hashes.SHA256())
    with refused(HttpResponseError, 400, "BadParameter"):
        certificates.import_certificate("pfx", pfx, password="wrong")

    made = ec.generate_private_key(ec.SECP256R1())
    leaf = signed(common_name("pem"), made.public_key(), common_name("pem"), made)
    pem = made.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ) + leaf.public_bytes(serialization.Encoding.PEM)
    policy = CertificatePolicy(WellKnownIssuerNames.unknown, content_type="application/x-pem-file")
    imported = certificates.import_certificate("pem", pem, policy=policy, enabled=True)
    assert bytes(imported.cer) == leaf.public_bytes(serialization.Encoding.DER)
    assert imported.policy.key_type == "EC" and imported.policy.key_curve_name == "P-256"
    assert secrets.get_secret("pem").properties.content_type == "application/x-pem-file"


def hash_of(data):
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    return digest.finalize()


def merged():
    """A key of the vault, a certificate of somebody else's authority."""
    policy = CertificatePolicy(WellKnownIssuerNames.unknown, subject="CN=merged", key_type="RSA")
    poller = certificates.begin_create_certificate("merged", policy, **SOON)
    operation = certificates.get_certificate_operation("merged")
    assert operation.status == "inProgress", operation.status
    request = x509.load_der_x509_csr(bytes(operation.csr))
    assert request.is_signature_valid
    authority = ec.generate_private_key(ec.SECP256R1())
    leaf = signed(request.subject, request.public_key(), common_name("authority"), authority)
    root = signed(
        common_name("authority"), authority.public_key(), common_name("authority"), authority
    )
    chain = [one.public_bytes(serialization.Encoding.DER) for one in (leaf, root)]
    made = certificates.merge_certificate("merged", chain, tags={"a": "b"})
    assert bytes(made.cer) == chain[0] and made.properties.tags == {"a": "b"}
    assert poller.result().name == "merged"
    other = ec.generate_private_key(ec.SECP256R1())
    certificates.begin_create_certificate("unmerged", policy, **SOON)
    leaf = signed(common_name("merged"), other.public_key(), common_name("authority"), authority)
    with refused(HttpResponseError, 400, "BadParameter"):
        certificates.merge_certificate(
            "unmerged", [leaf.public_bytes(serialization.Encoding.DER)]
        )
    cancelled = certificates.cancel_certificate_operation("unmerged")
    assert cancelled.cancellation_requested
    certificates.delete_certificate_operation("unmerged")
    with refused(ResourceNotFoundError, 404, "PendingCertificateNotFound"):
        certificates.get_certificate_operation("unmerged")


def reading():
    first = certificates.get_certificate("self")
    policy = CertificatePolicy.get_default()
    second = certificates.begin_create_certificate("self", policy, **SOON).result()
    assert second.properties.version != first.properties.version
    got = certificates.get_certificate_version("self", first.properties.version)
    assert bytes(got.cer) == bytes(first.cer)
    versions = certificates.list_properties_of_certificate_versions("self", max_page_size=1)
    found = {item.version for item in versions}
    assert found == {first.properties.version, second.properties.version}
    listed = {item.name for item in certificates.list_properties_of_certificates()}
    assert {"self", "elliptic", "pfx", "pem", "merged"} <= listed, listed
    for missing in (
        lambda: certificates.get_certificate("none"),
        lambda: certificates.get_certificate_version("self", "0" * 32),
        lambda: certificates.get_certificate_policy("none"),
    ):
        with refused(ResourceNotFoundError, 404, "CertificateNotFound"):
            missing()


def updating():
    changed = certificates.update_certificate_properties("pfx", tags={"c": "d"}, enabled=False)
    assert changed.properties.tags == {"c": "d"} and not changed.properties.enabled
    version = changed.properties.version
    changed = certificates.update_certificate_properties("pfx", version, enabled=True)
    assert changed.properties.enabled and changed.properties.tags == {"c": "d"}
    policy = certificates.get_certificate_policy("self")
    policy._validity_in_months = 3
    policy._lifetime_actions = [
        LifetimeAction(CertificatePolicyAction.email_contacts, lifetime_percentage=80)
    ]
    changed = certificates.update_certificate_policy("self", policy)
    assert changed.validity_in_months == 3, changed.validity_in_months
    assert changed.lifetime_actions[0].lifetime_percentage == 80
    assert changed.lifetime_actions[0].action == "EmailContacts"


def deletion():
    deleted = certificates.begin_delete_certificate("elliptic", **SOON)
    deleted.wait()
    assert deleted.result().recovery_id.endswith("/deletedcertificates/elliptic")
    with refused(ResourceNotFoundError, 404, "CertificateNotFound"):
        certificates.get_certificate("elliptic")
    with refused(ResourceNotFoundError, 404, "KeyNotFound"):
        keys.get_key("elliptic")
    with refused(ResourceExistsError, 409, "Conflict", "ObjectIsDeletedButRecoverable"):
        certificates.begin_create_certificate("elliptic", CertificatePolicy.get_default())
    assert certificates.get_deleted_certificate("elliptic").deleted_on
    assert "elliptic" in [item.name for item in certificates.list_deleted_certificates()]
    recovery = certificates.begin_recover_deleted_certificate("elliptic", **SOON)
    recovery.wait()
    assert certificates.get_certificate("elliptic").id == recovery.result().id

    backup = certificates.backup_certificate("elliptic")
    certificates.begin_delete_certificate("elliptic", **SOON).wait()
    certificates.purge_deleted_certificate("elliptic")
    for call in (certificates.get_deleted_certificate, certificates.purge_deleted_certificate):
        with refused(ResourceNotFoundError, 404, "CertificateNotFound"):
            call("elliptic")
    restored = certificates.restore_certificate_backup(backup)
    assert certificates.get_certificate("elliptic").id == restored.id


def permission():
    strange = CertificateClient(VAULT, stranger)
    for call in (
        lambda: strange.get_certificate("self"),
        lambda: list(strange.list_properties_of_certificates()),
        lambda: strange.backup_certificate("self"),
    ):
        with refused(HttpResponseError, 403, "Forbidden", "ForbiddenByPolicy"):
            call()


def left_out():
    """What the emulator has none of says so in the service's way."""
    for call in (
        lambda: certificates.get_contacts(),
        lambda: certificates.get_issuer("none"),
        lambda: list(certificates.list_properties_of_issuers()),
    ):
        with refused(HttpResponseError, 400, "NotSupported"):
            call()


for check in (self_signed, elliptic, imports, merged, reading, updating, deletion):
    print(check.__name__, flush=True)
    check()
permission()
left_out()
