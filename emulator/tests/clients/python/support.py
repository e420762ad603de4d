"""What the scripts share: credentials, both services, refusals, keys through PKCS#11."""

import contextlib
import json
import os
import subprocess
import urllib.request

from azure.identity import ClientSecretCredential

VAULT = "https://kv1.vault.azure.net"
HSM = "https://hsm1.managedhsm.azure.net"
# The label of the PKCS#11 token that a service is.
TOKENS = {VAULT: "kv1", HSM: "hsm1"}
TENANT = os.environ["AZURE_TENANT_ID"]
# Between two questions of a poller, in seconds.
SOON = {"_polling_interval": 0.2}

# May do everything.
credential = ClientSecretCredential(
    TENANT, os.environ["AZURE_CLIENT_ID"], os.environ["AZURE_CLIENT_SECRET"]
)
# Cannot get a key: whatever it does with one, the service does.
remote = ClientSecretCredential(
    TENANT, "22222222-0000-4000-8000-000000000001", "asks-the-service"
)
# May do nothing.
stranger = ClientSecretCredential(TENANT, "22222222-0000-4000-8000-000000000002", "may-nothing")


@contextlib.contextmanager
def refused(error, status, code, inner=None):
    """What is done inside is refused with exactly this class and these codes of the service."""
    try:
        yield
    except error as refusal:
        assert type(refusal) is error, repr(refusal)
        assert refusal.status_code == status, (refusal.status_code, str(refusal))
        told = json.loads(refusal.response.text())["error"]
        assert told["code"] == code, told
        if inner:
            assert told["innererror"]["code"] == inner, told
    else:
        raise AssertionError(f"was not refused with {status} {code}")


def counted(service, operation):
    """How often so far."""
    with urllib.request.urlopen(os.environ["AKV_EMULATOR_CONTROL"] + "/counters") as answer:
        return json.load(answer)[service].get(operation, 0)


def pkcs11(url, *arguments):
    """Runs pkcs11-tool on the token that is the service at `url`; returns what it printed."""
    command = ["pkcs11-tool", "--module", os.environ["AKV_MODULE"], "--token-label", TOKENS[url]]
    ended = subprocess.run([*command, *arguments], stdout=-1, stderr=-2, check=False)
    text = ended.stdout.decode(errors="replace")
    assert ended.returncode == 0, f"{arguments}: {text}"
    return text


def pkcs11_id(url, label):
    """CKA_ID of the private or secret key of this label: pkcs11-tool uses keys by their ids."""
    for kind in ("privkey", "secrkey"):
        listed = pkcs11(url, "-O", "--type", kind).splitlines()
        for at, line in enumerate(listed):
            if line.split() == ["label:", label]:
                return next(line.split()[1] for line in listed[at:] if "ID:" in line)
    raise AssertionError(f"no key {label}")


def pkcs11_file(url, content, *arguments):
    """The same for what makes a file of a file: `--sign`, `--decrypt`; returns its bytes."""
    with open("input", "wb") as file:
        file.write(content)
    with contextlib.suppress(FileNotFoundError):
        os.remove("output")
    pkcs11(url, *arguments, "--input-file", "input", "--output-file", "output")
    with open("output", "rb") as file:
        return file.read()
