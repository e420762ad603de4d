"""A key made by each client is there for the other."""

import os
import subprocess

from azure.identity import ClientSecretCredential
from azure.keyvault.keys import KeyClient

VARIABLES = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")
credential = ClientSecretCredential(*(os.environ[name] for name in VARIABLES))
for token, url in [
    ("kv1", "https://kv1.vault.azure.net"),
    ("hsm1", "https://hsm1.managedhsm.azure.net"),
]:
    key = KeyClient(url, credential).create_ec_key("made-by-python")
    assert key.id.startswith(f"{url}/keys/made-by-python/"), key.id
    module = os.environ["AKV_MODULE"]
    command = ["pkcs11-tool", "--module", module, "--token-label", token, "-O"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "made-by-python" in listed, listed
