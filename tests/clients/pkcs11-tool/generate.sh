# Key pairs made in the service, by name and type, and what the service does not make.
. "$AKV_CLIENTS/pkcs11-tool/tool.sh"

printf 'What is signed.' >data

# An RSA key takes its time on a busy machine.
sed 's/^service = .*/&\ntimeout = "2m"/' "$AKV_PKCS11_CONFIG" >patient.toml
export AKV_PKCS11_CONFIG="$PWD/patient.toml"

# generate LABEL TYPE OPTIONS…: one key made by the service.
generate() {
    label=$1 type=$2
    shift 2
    expect_counted "$SERVICE" keys/create 1 keypairgen --label "$label" --key-type "$type" "$@"
    if grep warning generated; then fail "$(cat generated)"; fi
    grep -q "^  label:      $label\$" generated || fail "$(cat generated)"
}

keypairgen() { p11 --keypairgen "$@" >generated 2>&1 || fail "$(cat generated)"; }

# refused_at_once OPTIONS…: no key, and the service is not even asked to make one.
refused_at_once() {
    expect_counted "$SERVICE" keys/create 0 refused p11 --keypairgen "$@"
}

for type in RSA:2048 rsa:3072 RSA:4096; do
    key=new-rsa-${type#*:}
    say "$TOKEN $key"
    generate "$key" $type
    export_key "$key"
    openssl pkey -pubin -in "$key.pem" -noout -text | grep -q "(${type#*:} bit)"
    sign signature data -m SHA256-RSA-PKCS
    openssl dgst -sha256 -verify "$key.pem" -signature signature data
    openssl pkeyutl -encrypt -pubin -inkey "$key.pem" -in data -out encrypted
    expect_counted "$SERVICE" keys/decrypt 1 \
        p11 --decrypt --id "$ID" -m RSA-PKCS --input-file encrypted --output-file decrypted
    cmp data decrypted
done

for curve in prime256v1 secp384r1 secp521r1; do
    key=new-ec-$curve
    say "$TOKEN $key"
    # With a PIN, which this token does not ask for, and does not mind.
    generate "$key" EC:$curve --login --pin 1234
    export_key "$key"
    sign signature data -m ECDSA-SHA256 -f openssl
    openssl dgst -sha256 -verify "$key.pem" -signature signature data
done

say "$TOKEN: the id that was asked for stays with the key"
generate with-id EC:prime256v1 --id 0123456789
[ "$(shown privkey with-id ID)" = 0123456789 ] || fail "$(p11 -O)"
[ "$(shown pubkey with-id ID)" = 0123456789 ] || fail "$(p11 -O)"
export_key with-id
sign signature data -m ECDSA-SHA256 -f openssl
openssl dgst -sha256 -verify with-id.pem -signature signature data

say "$TOKEN: a usage that was asked for alone"
generate sign-only RSA:2048 --usage-sign
[ "$(shown privkey sign-only Usage)" = sign ] || fail "usages of sign-only: $(p11 -O --type privkey)"

say "$TOKEN: a label that is no name for the service"
generate 'Two words, and more.' EC:prime256v1
export_key 'Two words, and more.'
sign signature data -m ECDSA-SHA256 -f openssl
openssl dgst -sha256 -verify 'Two words, and more..pem' -signature signature data

say "$TOKEN: what is refused"
refused_at_once --label 'Two words, and more.' --key-type RSA:2048
refused_at_once --label new-rsa-2048 --key-type RSA:2048 # a name in use
refused_at_once --label short --key-type RSA:1024
refused_at_once --label odd --key-type EC:brainpoolP256r1
refused_at_once --label edwards --key-type EC:ed25519
[ "$(p11 -O --type privkey | grep -c '^Private Key Object')" -eq 13 ] ||
    fail "not 4 + 9 keys: $(p11 -O --type privkey)"
