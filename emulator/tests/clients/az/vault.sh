# `az keyvault …` on a vault: what Microsoft's article "Manage Key Vault using the Azure CLI" shows
# of keys, secrets and certificates, then every other command and option of `az keyvault key`.
. "$AKV_CLIENTS/az/az.sh"
TOKEN=kv1
vault=https://kv1.vault.azure.net

login --password "$AZURE_CLIENT_SECRET"

# The article, "Adding a key, secret, or certificate to the key vault".
key create --vault-name kv1 --name ContosoFirstKey --protection software
holds '.key.kty == "RSA" and (.key.keyOps | sort) ==
    ["decrypt", "encrypt", "sign", "unwrapKey", "verify", "wrapKey"]'
holds ".key.kid | test(\"^$vault/keys/ContosoFirstKey/[0-9a-f]{32}\$\")"
first=$(told .key.kid)
openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out softkey.plain
openssl pkcs8 -topk8 -in softkey.plain -passout pass:hVFkk965BuUv -out softkey.pem
key import --vault-name kv1 --name ContosoFirstKey --pem-file ./softkey.pem \
    --pem-password hVFkk965BuUv --protection software
holds '.key.kty == "RSA"'
keyvault secret set --vault-name kv1 --name SQLPassword --value 'hVFkk965BuUv '
holds '.value == "hVFkk965BuUv "'
openssl req -x509 -newkey rsa:2048 -noenc -keyout cert.key -out cert.pem -subj /CN=contoso \
    -days 30 2>/dev/null
openssl pkcs12 -export -inkey cert.key -in cert.pem -passout pass:hVFkk965BuUv -out cert.pfx
keyvault certificate import --vault-name kv1 --file cert.pfx --name ContosoCert \
    --password hVFkk965BuUv
holds '.policy.x509CertificateProperties.subject == "CN=contoso"'
key list --vault-name kv1
holds 'map(.name) | sort == ["ContosoFirstKey"]'
keyvault secret list --vault-name kv1
holds 'map(.name) == ["SQLPassword"]'
keyvault certificate list --vault-name kv1
holds 'map(.name) == ["ContosoCert"]'

# "Working with Hardware security modules".
key create --vault-name kv1 --name ContosoFirstHSMKey --protection hsm
holds '.key.kty == "RSA-HSM"'
key import --vault-name kv1 --name ContosoFirstHSMKey --pem-file ./softkey.pem --protection hsm \
    --pem-password hVFkk965BuUv
holds '.key.kty == "RSA-HSM"'
key create --vault-name kv1 --name kek --protection hsm --ops import --size 4096
holds '.key.keyOps == ["import"]'
kek=$(told .key.kid)
key download --vault-name kv1 --name kek --file kek.pem
openssl pkcs8 -topk8 -nocrypt -in softkey.plain -outform DER -out own.der
byok_blob kek.pem "$kek" own.der ITByok.byok
key import --vault-name kv1 --name ContosoFirstHSMKey --byok-file ./ITByok.byok --protection hsm
holds '.key.kty == "RSA-HSM"'

# "Miscellaneous".
key show --vault-name kv1 --name ContosoFirstKey
holds '.attributes.enabled and .attributes.recoveryLevel == "CustomizedRecoverable+Purgeable"'
key delete --vault-name kv1 --name ContosoFirstKey
holds ".recoveryId == \"$vault/deletedkeys/ContosoFirstKey\" and .scheduledPurgeDate != null"
keyvault secret delete --vault-name kv1 --name SQLPassword
holds ".recoveryId == \"$vault/deletedsecrets/SQLPassword\""

# Every kind and every option of `create`, by name and by id.
key create --id $vault/keys/later --kty EC --curve P-384 --ops sign verify --disabled true \
    --tags usage=signing appname=myapp \
    --not-before 2030-01-01T00:00:00Z --expires 2031-01-01T00:00:00Z
holds '.key.crv == "P-384" and (.key.keyOps | sort) == ["sign", "verify"]'
holds '.tags == {usage: "signing", appname: "myapp"} and (.attributes.enabled | not)'
holds '.attributes.notBefore == "2030-01-01T00:00:00+00:00"'
holds '.attributes.expires == "2031-01-01T00:00:00+00:00"'
later=$(told .key.kid)
key set-attributes --id "$later" --enabled true --ops sign --tags usage=tests \
    --not-before 2020-01-01T00:00:00Z --expires 2032-01-01
holds '.key.keyOps == ["sign"] and .tags == {usage: "tests"} and .attributes.enabled'
holds '.attributes.notBefore == "2020-01-01T00:00:00+00:00"'
holds '.attributes.expires == "2032-01-01T00:00:00+00:00"'
cat >release.json <<'EOF'
{
  "version": "1.0.0",
  "anyOf": [{
    "authority": "https://sharedeus.eus.attest.azure.net/",
    "allOf": [{"claim": "x-ms-compliance-status", "equals": "azure-compliant-cvm"}]
  }]
}
EOF
key create --vault-name kv1 --name leaves --kty EC-HSM --curve P-256 --exportable true \
    --policy release.json --immutable false
holds '.attributes.exportable and .releasePolicy.immutable == false'
holds '.releasePolicy.encodedPolicy | fromjson |
    .anyOf[0].allOf[0].claim == "x-ms-compliance-status"'
refused 'Fail to fetch default release policy' key create --vault-name kv1 --name leaves \
    --kty EC-HSM --exportable true --default-cvm-policy

# Import of every kind.
openssl ecparam -name secp256k1 -genkey -noout -out k1.pem
key import --id $vault/keys/coin --pem-string "$(cat k1.pem)" --disabled false \
    --tags a=b --expires 2035-01-01 --not-before 2020-01-01 --ops sign verify
holds '.key.kty == "EC" and .tags == {a: "b"}'
key download --id $vault/keys/coin --file coin.der --encoding DER
openssl pkey -in k1.pem -pubout -outform DER -out k1.der
same coin.der k1.der

# What keys are good for. az imports a key on this curve under the curve's name of 2016, of which
# ES256K is no algorithm.
refused "can only be used with curve 'P-256K'" key sign --id $vault/keys/coin \
    --algorithm ES256K --digest "$(digest sha256 data)"
key create --id $vault/keys/token --kty EC --curve P-256K
key sign --id $vault/keys/token --algorithm ES256K --digest "$(digest sha256 data)"
signature=$(told .signature)
key verify --id $vault/keys/token --algorithm ES256K --digest "$(digest sha256 data)" \
    --signature "$signature"
holds '.isValid'
key verify --id $vault/keys/token --algorithm ES256K --digest "$(digest sha256 coin.der)" \
    --signature "$signature"
holds '.isValid | not'
key sign --vault-name kv1 --name ContosoFirstHSMKey --algorithm PS256 \
    --digest "$(digest sha256 data)"
told .signature | base64 -d >signature
openssl dgst -sha256 -prverify softkey.plain -sigopt rsa_padding_mode:pss -signature signature data
key encrypt --vault-name kv1 --name ContosoFirstHSMKey --algorithm RSA-OAEP-256 \
    --value 'The treasure is under the oak.' --data-type plaintext
ciphertext=$(told .result)
key decrypt --vault-name kv1 --name ContosoFirstHSMKey --algorithm RSA-OAEP-256 \
    --value "$ciphertext" --data-type plaintext
holds '.result == "The treasure is under the oak."'
key decrypt --id "$(told .kid)" --algorithm RSA-OAEP-256 --value "$ciphertext"
holds '.result == ("The treasure is under the oak." | @base64)'

# Versions, and their policy.
key create --vault-name kv1 --name ContosoFirstHSMKey --kty EC-HSM --curve P-521
newest=$(told .key.kid)
key list-versions --vault-name kv1 --name ContosoFirstHSMKey
holds 'length == 4 and (map(.kid) | index("'"$newest"'")) != null'
key list-versions --id $vault/keys/ContosoFirstHSMKey --maxresults 2
holds 'length == 2'
key show --vault-name kv1 --name ContosoFirstHSMKey --version "${newest##*/}"
holds '.key.kid == "'"$newest"'" and .key.crv == "P-521"'
key get-policy-template
holds '.anyOf[0].allOf[0].claim == "<claim name>"'
cat >rotation.json <<'EOF'
{
  "lifetimeActions": [],
  "lifetime_actions": [
    {"trigger": {"time_after_create": "P18M"}, "action": {"type": "Rotate"}},
    {"trigger": {"time_before_expiry": "P30D"}, "action": {"type": "Notify"}}
  ],
  "attributes": {"expiry_time": "P2Y"}
}
EOF
key rotation-policy update --vault-name kv1 --name ContosoFirstHSMKey --value rotation.json
holds '.expiresIn == "P2Y" and (.lifetimeActions | length) == 2'
key rotation-policy show --id $vault/keys/ContosoFirstHSMKey
holds '.lifetimeActions | map(select(.action == "Rotate" and .timeAfterCreate == "P18M")) |
    length == 1'
key rotate --vault-name kv1 --name ContosoFirstHSMKey
holds '.key.kid != "'"$newest"'" and .key.crv == "P-521" and .attributes.expires != null'

# Away and back.
key list-deleted --vault-name kv1
holds 'map(.name) == ["ContosoFirstKey"]'
key show-deleted --vault-name kv1 --name ContosoFirstKey
holds '.recoveryId == "'$vault/deletedkeys/ContosoFirstKey'" and .deletedDate != null'
refused 'ObjectIsDeletedButRecoverable' key create --vault-name kv1 --name ContosoFirstKey
key recover --vault-name kv1 --name ContosoFirstKey
holds '.key.kty == "RSA"'
az keyvault key backup --id $vault/keys/coin --file coin.backup
key delete --id $vault/keys/coin
recovery=$(told .recoveryId)
key recover --id "$recovery"
holds '.tags == {a: "b"}'
refused 'Conflict' key restore --vault-name kv1 --file coin.backup
key delete --vault-name kv1 --name coin
az keyvault key purge --id "$recovery"
refused KeyNotFound key show --id $vault/keys/coin
key restore --vault-name kv1 --file coin.backup
holds '.tags == {a: "b"} and .attributes.expires == "2035-01-01T00:00:00+00:00"'

# Keys of az through PKCS#11, with the token of `az login`; and the other way round.
cat >pkcs11.toml <<EOF
[[token]]
label = "kv1"
endpoint = "$vault"
credential = "azure-cli"
ca_file = "$REQUESTS_CA_BUNDLE"
EOF
export AKV_PKCS11_CONFIG="$PWD/pkcs11.toml"
p11 --sign --id "$(id_of later)" -m ECDSA-SHA384 -f openssl -i data -o signature
key download --vault-name kv1 --name later --file later.pem
openssl dgst -sha384 -verify later.pem -signature signature data
p11 --login --pin 0 --keypairgen --key-type EC:prime256v1 --label made-by-pkcs11
key show --vault-name kv1 --name made-by-pkcs11
holds '.key.kty == "EC" and .key.crv == "P-256"'
key sign --vault-name kv1 --name made-by-pkcs11 --algorithm ES256 --digest "$(digest sha256 data)"
told .signature | base64 -d >signature
key download --vault-name kv1 --name made-by-pkcs11 --file made-by-pkcs11.pem
p11 --verify --id "$(id_of made-by-pkcs11)" -m ECDSA-SHA256 -f rs --signature-file signature \
    -i data | grep 'Signature is valid'
