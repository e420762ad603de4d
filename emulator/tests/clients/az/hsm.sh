# `az keyvault key …` on a Managed HSM: what Microsoft's article "Manage a Managed HSM using the
# Azure CLI" shows, each command with --hsm-name and with --id, then what else there is for HSMs.
. "$AKV_CLIENTS/az/az.sh"
TOKEN=hsm1
hsm=https://hsm1.managedhsm.azure.net

login --certificate "$(jq --raw-output .client_certificate "$AKV_EMULATOR_READY")"

# "Create an HSM key".
for where in '--hsm-name hsm1 --name myrsakey' "--id $hsm/keys/myrsakey"; do
    # shellcheck disable=SC2086 # several words
    key create $where --ops wrapKey unwrapKey --kty RSA-HSM --size 3072
    holds '.key.kty == "RSA-HSM" and (.key.keyOps | sort) == ["unwrapKey", "wrapKey"]'
    holds '.key.n | @base64d | utf8bytelength > 384'
done
for where in '--hsm-name hsm1 --name myec256key' "--id $hsm/keys/myec256key"; do
    # shellcheck disable=SC2086
    key create $where --ops sign verify --tags usage=signing appname=myapp --kty EC-HSM \
        --curve P-256
    holds '.key.kty == "EC-HSM" and .tags == {usage: "signing", appname: "myapp"}'
done
key create --hsm-name hsm1 --name myaeskey --ops encrypt decrypt --tags --kty oct-HSM --size 256
holds '.key.kty == "oct-HSM" and (.tags // {}) == {} and .key.k == null'
key create --id $hsm/keys/myaeskey --ops encrypt decrypt --tags usage=signing --kty oct-HSM \
    --size 256
holds '.tags == {usage: "signing"}'

# "View key attributes and tags", "List keys".
key show --hsm-name HSM1 --name myrsakey
rsa=$(told .key.kid)
key show --id "$rsa"
holds ".key.kid == \"$rsa\" and .attributes.enabled and .attributes.recoverableDays == 7"
for where in '--hsm-name hsm1' "--id $hsm/"; do
    # shellcheck disable=SC2086
    key list $where
    holds 'map(.name) | sort == ["myaeskey", "myec256key", "myrsakey"]'
done

# "Delete a key", "List deleted keys", "Recover", "Purge"; "Create a single key backup", "Restore".
key delete --hsm-name hsm1 --name myrsakey
key list-deleted --hsm-name hsm1
holds 'map(.name) == ["myrsakey"]'
key recover --hsm-name hsm1 --name myrsakey
holds ".key.kid == \"$rsa\""
az keyvault key backup --hsm-name hsm1 --name myrsakey --file by-name.backup
# The article has deletedKeys here, of a key that is there; az does not mind.
az keyvault key backup --id $hsm/deletedKeys/myrsakey --file by-id.backup
key delete --id $hsm/keys/myrsakey
key list-deleted --id $hsm/
recovery=$(told '.[0].recoveryId')
key recover --id "$recovery"
key delete --id $hsm/keys/myrsakey
az keyvault key purge --hsm-name hsm1 --name myrsakey
key restore --hsm-name hsm1 --file by-name.backup
holds ".key.kid == \"$rsa\""
key delete --id $hsm/keys/myrsakey
az keyvault key purge --id $hsm/deletedKeys/myrsakey
key restore --id $hsm/deletedKeys/myrsakey --file by-id.backup
holds ".key.kid == \"$rsa\""
key list-versions --id $hsm/keys/myrsakey
holds 'length == 2'

# "Import a key from a file": in a PEM, and wrapped.
openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out plain.key
openssl pkcs8 -topk8 -in plain.key -passout pass:mypassword -out mycert.key
key import --hsm-name hsm1 --name imported --pem-file mycert.key --pem-password mypassword
key import --id $hsm/keys/imported --pem-file mycert.key --pem-password mypassword
holds '.key.kty == "RSA-HSM"'
key download --hsm-name hsm1 --name imported --file imported.der --encoding DER
openssl pkey -in plain.key -pubout -outform DER -out plain.der
same imported.der plain.der
key create --hsm-name hsm1 --name kek --kty RSA-HSM --size 4096 --ops import
kek=$(told .key.kid)
key download --id "$kek" --file kek.pem
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 |
    openssl pkcs8 -topk8 -nocrypt -outform DER -out own.der
byok_blob kek.pem "$kek" own.der own.byok
key import --hsm-name hsm1 --name own-ec --kty EC --curve P-521 --byok-file own.byok --ops sign
holds '.key.kty == "EC-HSM" and .key.crv == "P-521" and .key.keyOps == ["sign"]'
printf '%032d' 7 >own.aes
byok_blob kek.pem "$kek" own.aes own.byok
key import --id $hsm/keys/own-aes --kty oct --byok-string "$(cat own.byok)" --ops encrypt decrypt
holds '.key.kty == "oct-HSM"'

# What keys are good for.
digest=$(digest sha256 data)
key sign --hsm-name hsm1 --name myec256key --algorithm ES256 --digest "$digest"
signature=$(told .signature)
key verify --id $hsm/keys/myec256key --algorithm ES256 --digest "$digest" --signature "$signature"
holds '.isValid'
key encrypt --hsm-name hsm1 --name myaeskey --algorithm A256GCM --value "$(base64 <data)" \
    --aad 0102
set -- --iv "$(told .iv)" --tag "$(told .tag)" --value "$(told .result)"
key decrypt --id "$(told .kid)" --algorithm A256GCM --aad 0102 "$@" --data-type plaintext
holds '.result == "What is signed."'
refused 'BadParameter' key decrypt --hsm-name hsm1 --name myaeskey --algorithm A256GCM \
    --aad 0103 "$@"
# Not A256CBCPAD: az 2.91 does that without asking anybody, with a key made up on the spot.
iv=000102030405060708090a0b0c0d0e0f
key encrypt --hsm-name hsm1 --name own-aes --algorithm A256CBC --value "$(base64 <data)" --iv $iv
told .result | base64 -d >encrypted
openssl enc -d -nopad -aes-256-cbc -K "$(od -An -v -tx1 own.aes | tr -d ' \n')" -iv $iv \
    -in encrypted | tr -d '\000' >decrypted
same decrypted data
key random --hsm-name hsm1 --count 32
random=$(told .value)
key random --id $hsm --count 32
holds ".value != \"$random\" and (.value | length) == 44"
key rotation-policy update --hsm-name hsm1 --name myec256key --value '{
    "lifetimeActions": [], "attributes": {"expiryTime": null, "expiry_time": "P90D"},
    "lifetime_actions": [{"trigger": {"time_before_expiry": "P10D"}, "action": {"type": "rotate"}}]
}'
key rotation-policy show --id $hsm/keys/myec256key
holds '.expiresIn == "P90D" and .lifetimeActions[0].timeBeforeExpiry == "P10D"'
key rotate --id $hsm/keys/myec256key
holds '.attributes.expires != null'
cat >release.json <<'EOF'
{"version": "1.0.0", "anyOf": [{"authority": "https://sharedeus.eus.attest.azure.net/",
  "allOf": [{"claim": "x-ms-compliance-status", "equals": "azure-compliant-cvm"}]}]}
EOF
key create --hsm-name hsm1 --name leaves --kty oct-HSM --exportable true --policy release.json
holds '.attributes.exportable and .releasePolicy.encodedPolicy != null'

key get-attestation --hsm-name hsm1 --name myrsakey
holds '.certificatePemFile | @base64d | startswith("-----BEGIN CERTIFICATE-----")'
holds '(.publicKeyAttestation | length > 0) and (.privateKeyAttestation | length > 0)'
az keyvault key get-attestation --id $hsm/keys/myrsakey --file attestation.json
mv attestation.json answer
holds '.certificatePemFile | @base64d | startswith("-----BEGIN CERTIFICATE-----")'

# Keys of az through PKCS#11, and the other way round.
key create --hsm-name hsm1 --name made-by-az --kty EC-HSM --curve P-384
key download --hsm-name hsm1 --name made-by-az --file made-by-az.pem
p11 --sign --id "$(id_of made-by-az)" -m ECDSA-SHA384 -f openssl -i data -o signature
openssl dgst -sha384 -verify made-by-az.pem -signature signature data
p11 --login --pin 0 --keypairgen --key-type rsa:2048 --label made-by-pkcs11
key download --hsm-name hsm1 --name made-by-pkcs11 --file made-by-pkcs11.pem
key sign --hsm-name hsm1 --name made-by-pkcs11 --algorithm RS512 --digest "$(digest sha512 data)"
told .signature | base64 -d >signature
openssl dgst -sha512 -verify made-by-pkcs11.pem -signature signature data
