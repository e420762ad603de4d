"""azure-keyvault-keys: everything a key is used for, by the service, and through PKCS#11."""

import hashlib
import os

from azure.core.exceptions import HttpResponseError
from azure.keyvault.keys import KeyClient
from azure.keyvault.keys.crypto import (
    CryptographyClient,
    EncryptionAlgorithm,
    KeyWrapAlgorithm,
    SignatureAlgorithm,
)
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from support import HSM, TOKENS, VAULT, counted, credential, refused, remote
from support import pkcs11, pkcs11_file, pkcs11_id

DATA = b"What is signed, or encrypted. 48 bytes of it all."[:48]
CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "P-256K": "ES256K"}


def digest(algorithm):
    return hashlib.new("sha" + "".join(filter(str.isdigit, algorithm)), DATA).digest()


class Use:
    """A key's use, and the algorithms that were tried."""

    def __init__(self, url):
        self.service = ("managed-hsm:" if url == HSM else "vault:") + TOKENS[url]
        self.tried = set()

    def asked(self, operation, call):
        """Calls; the service is asked to do it exactly once."""
        before = counted(self.service, operation)
        answer = call()
        assert counted(self.service, operation) == before + 1, operation
        return answer

    def sign(self, key, algorithm):
        algorithm = SignatureAlgorithm(algorithm)
        self.tried.add(algorithm)
        there, hashed = CryptographyClient(key.id, remote), digest(algorithm.value)
        signed = self.asked("keys/sign", lambda: there.sign(algorithm, hashed))
        assert signed.key_id == key.id and signed.algorithm == algorithm
        for value, good in ((hashed, True), (bytes(len(hashed)), False)):
            verify = lambda: there.verify(algorithm, value, signed.signature)
            assert self.asked("keys/verify", verify).is_valid is good, algorithm
        if not algorithm.value.startswith("HS"):
            # The package's own verification, with the public key.
            here = CryptographyClient(key, credential)
            before = counted(self.service, "keys/verify")
            assert here.verify(algorithm, hashed, signed.signature).is_valid, algorithm
            assert counted(self.service, "keys/verify") == before
        for wrong in (hashed[:-1], hashed + b"0"):
            with refused(HttpResponseError, 400, "BadParameter"):
                there.sign(algorithm, wrong)

    def encrypt(self, key, algorithm):
        algorithm = EncryptionAlgorithm(algorithm)
        self.tried.add(algorithm)
        there, name, more = CryptographyClient(key.id, remote), algorithm.value, {}
        if "CBC" in name:
            more["iv"] = os.urandom(16)
        if "GCM" in name:
            more["additional_authenticated_data"] = b"also"
        made = self.asked("keys/encrypt", lambda: there.encrypt(algorithm, DATA, **more))
        if "GCM" in name:
            assert len(made.iv) == 12 and len(made.ciphertext) == len(DATA)
            more |= {"iv": made.iv, "authentication_tag": made.tag}
        decrypt = lambda: there.decrypt(algorithm, made.ciphertext, **more)
        assert self.asked("keys/decrypt", decrypt).plaintext == DATA, algorithm
        if name.startswith("RSA"):
            # What the package encrypted itself.
            local = CryptographyClient(key, credential).encrypt(algorithm, DATA)
            assert there.decrypt(algorithm, local.ciphertext).plaintext == DATA, algorithm
        if "CBC" not in name:
            broken = made.ciphertext[:-1] + bytes([made.ciphertext[-1] ^ 1])
            with refused(HttpResponseError, 400, "BadParameter"):
                there.decrypt(algorithm, broken, **more)

    def wrap(self, key, algorithm):
        algorithm = KeyWrapAlgorithm(algorithm)
        self.tried.add(algorithm)
        there, secret = CryptographyClient(key.id, remote), os.urandom(32)
        wrapped = self.asked("keys/wrapkey", lambda: there.wrap_key(algorithm, secret))
        unwrap = lambda: there.unwrap_key(algorithm, wrapped.encrypted_key)
        assert self.asked("keys/unwrapkey", unwrap).key == secret, algorithm
        if not algorithm.value.startswith("RSA"):
            assert len(wrapped.encrypted_key) == 40, algorithm


def every_algorithm(url, keys):
    use = Use(url)
    key = keys.create_rsa_key("rsa")
    for algorithm in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"):
        use.sign(key, algorithm)
    for algorithm in ("RSA1_5", "RSA-OAEP", "RSA-OAEP-256"):
        use.encrypt(key, algorithm)
        use.wrap(key, algorithm)
    for curve, algorithm in CURVES.items():
        use.sign(keys.create_ec_key(f"ec-{curve}", curve=curve), algorithm)
    if url == HSM:
        for size in (128, 192, 256):
            key = keys.create_oct_key(f"oct{size}", size=size, hardware_protected=True)
            for mode in ("GCM", "CBC", "CBCPAD"):
                use.encrypt(key, f"A{size}{mode}")
            for algorithm in (f"A{size}KW", "CKM_AES_KEY_WRAP", "CKM_AES_KEY_WRAP_PAD"):
                use.wrap(key, algorithm)
        for algorithm in ("HS256", "HS384", "HS512"):
            use.sign(key, algorithm)
    for enum in (SignatureAlgorithm, EncryptionAlgorithm, KeyWrapAlgorithm):
        left = {one for one in enum if one not in use.tried}
        symmetric = {one for one in left if one.value[:2] in ("A1", "A2", "HS", "CK")}
        assert left == (set() if url == HSM else symmetric), left


def refusals(url, keys):
    inner = (lambda code: None) if url == HSM else (lambda code: code)
    key = keys.create_rsa_key("sign-only", key_operations=["sign"])
    there = CryptographyClient(key.id, remote)
    there.sign(SignatureAlgorithm.rs256, digest("RS256"))
    with refused(HttpResponseError, 403, "Forbidden", inner("KeyOperationForbidden")):
        there.decrypt(EncryptionAlgorithm.rsa_oaep, bytes(256))
    keys.update_key_properties("sign-only", enabled=False)
    with refused(HttpResponseError, 403, "Forbidden", inner("KeyDisabled")):
        there.sign(SignatureAlgorithm.rs256, digest("RS256"))
    with refused(HttpResponseError, 400, "BadParameter"):
        CryptographyClient(keys.get_key("rsa").id, remote).sign(
            SignatureAlgorithm.es256, digest("ES256")
        )


def as_private_key(keys):
    """The package's key of the `cryptography` library."""
    key = CryptographyClient(keys.get_key("rsa"), credential).create_rsa_private_key()
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
    signature = key.sign(DATA, pss, hashes.SHA256())
    key.public_key().verify(signature, DATA, pss, hashes.SHA256())
    assert key.decrypt(key.public_key().encrypt(DATA, oaep), oaep) == DATA


def through_pkcs11(url, keys):
    """Each uses the keys that the other made."""
    pkcs11(url, "--keypairgen", "--key-type", "rsa:2048", "--label", "p11-rsa")
    pkcs11(url, "--keypairgen", "--key-type", "EC:prime256v1", "--label", "p11-ec")
    keys.create_rsa_key("sdk-rsa")
    keys.create_ec_key("sdk-ec", curve="P-256")
    use, sha256 = Use(url), digest("RS256")
    for name in ("p11-rsa", "sdk-rsa"):
        key, at = keys.get_key(name), pkcs11_id(url, name)
        here, there = CryptographyClient(key, credential), CryptographyClient(key.id, remote)
        for algorithm, mechanism in {
            "RS256": ["SHA256-RSA-PKCS"],
            "PS256": ["SHA256-RSA-PKCS-PSS"],
        }.items():
            algorithm = SignatureAlgorithm(algorithm)
            signature = pkcs11_file(url, DATA, "--sign", "--id", at, "-m", *mechanism)
            assert here.verify(algorithm, sha256, signature).is_valid, (name, algorithm)
            assert there.verify(algorithm, sha256, signature).is_valid, (name, algorithm)
        encrypted = there.encrypt(EncryptionAlgorithm.rsa_oaep, DATA).ciphertext
        oaep = ["RSA-PKCS-OAEP", "--hash-algorithm", "SHA-1", "--mgf", "MGF1-SHA1"]
        assert pkcs11_file(url, encrypted, "--decrypt", "--id", at, "-m", *oaep) == DATA
        use.sign(key, "PS512")
        use.encrypt(key, "RSA-OAEP-256")
    for name in ("p11-ec", "sdk-ec"):
        key, at = keys.get_key(name), pkcs11_id(url, name)
        signature = pkcs11_file(url, DATA, "--sign", "--id", at, "-m", "ECDSA-SHA256")
        algorithm = SignatureAlgorithm.es256
        assert CryptographyClient(key, credential).verify(algorithm, sha256, signature).is_valid
        assert CryptographyClient(key.id, remote).verify(algorithm, sha256, signature).is_valid
        use.sign(key, "ES256")
    # A key of the service through PKCS#11: signed there, verified here.
    there = CryptographyClient(keys.get_key("sdk-rsa").id, remote)
    with open("signature", "wb") as file:
        file.write(there.sign(SignatureAlgorithm.rs256, sha256).signature)
    with open("input", "wb") as file:
        file.write(DATA)
    verify = ["--verify", "--id", pkcs11_id(url, "sdk-rsa"), "-m", "SHA256-RSA-PKCS"]
    files = ["--input-file", "input", "--signature-file", "signature"]
    assert "Signature is valid" in pkcs11(url, *verify, *files)


def secret_keys_through_pkcs11(url, keys):
    """The same with keys of AES, which a Managed HSM has."""
    pkcs11(url, "--keygen", "--key-type", "AES:32", "--sensitive", "--label", "p11-aes")
    keys.create_oct_key("sdk-aes", size=256, hardware_protected=True)
    use = Use(url)
    for name in ("p11-aes", "sdk-aes"):
        use.encrypt(keys.get_key(name), "A256CBCPAD")
        there, iv = CryptographyClient(keys.get_key(name).id, remote), os.urandom(16)
        cbc = ["--id", pkcs11_id(url, name), "-m", "AES-CBC-PAD", "--iv", iv.hex()]
        encrypted = there.encrypt(EncryptionAlgorithm.a256_cbcpad, DATA, iv=iv).ciphertext
        assert pkcs11_file(url, encrypted, "--decrypt", *cbc) == DATA
        encrypted = pkcs11_file(url, DATA, "--encrypt", *cbc)
        decrypted = there.decrypt(EncryptionAlgorithm.a256_cbcpad, encrypted, iv=iv)
        assert decrypted.plaintext == DATA


for url in (VAULT, HSM):
    keys = KeyClient(url, credential)
    print(url, flush=True)
    every_algorithm(url, keys)
    refusals(url, keys)
    as_private_key(keys)
    through_pkcs11(url, keys)
    if url == HSM:
        secret_keys_through_pkcs11(url, keys)
