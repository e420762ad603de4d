# docs/emulator.md, "The Azure CLI": the emulator as a cloud of its own, everything by --id.
. "$AKV_CLIENTS/az/az.sh"
vault=$(jq --raw-output '.services[] | select(.kind == "vault").url' "$AKV_EMULATOR_READY")
hsm=$(jq --raw-output '.services[] | select(.kind == "managed-hsm").url' "$AKV_EMULATOR_READY")

echo "-- az cloud register"
az cloud register --name emulator --endpoint-resource-manager "$AZURE_AUTHORITY_HOST"
az cloud set --name emulator
login --password "$AZURE_CLIENT_SECRET"
holds '.[0].cloudName == "emulator"'
# The module with the token of `az login`, as it would be with Azure.
sed 's/^credential = .*/credential = "azure-cli"/' "$AKV_PKCS11_CONFIG" >pkcs11.toml
export AKV_PKCS11_CONFIG="$PWD/pkcs11.toml"

for service in "$vault" "$hsm"; do
    key create --id "$service/keys/web" --kty EC --curve P-256
    holds ".key.kid | startswith(\"$service/keys/web/\")"
    key list --id "$service"
    holds 'map(.name) == ["web"]'
    key sign --id "$service/keys/web" --algorithm ES256 --digest "$(digest sha256 data)"
    told .signature | base64 -d >signature
    TOKEN=kv1
    [ "$service" = "$vault" ] || TOKEN=hsm1
    p11 --verify --id "$(id_of web)" -m ECDSA-SHA256 -f rs --signature-file signature -i data |
        grep 'Signature is valid'
done
