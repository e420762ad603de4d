# What pkcs11-tool shows of tokens, mechanisms and objects: everything, and no warning. The emulator
# has a vault kv1 and a Managed HSM hsm1, with the demo keys and those of objects.toml; $1 is kv1.
. "$AKV_CLIENTS/pkcs11-tool/tool.sh"

# clean COMMAND…: succeeds, prints to `shown`, and warns of nothing.
clean() {
    "$@" >shown 2>warnings || fail "exit code $? of: $*: $(cat warnings)"
    grep -v '^Using slot ' warnings >unexpected || return 0
    fail "warnings of $*: $(cat unexpected)"
}

# has PATTERN…: each on a line of what was shown.
has() {
    for pattern; do
        grep -q -e "$pattern" shown || fail "no '$pattern' in: $(cat shown)"
    done
}

say 'slots and tokens: nothing is asked of the services'
expect_counted vault:kv1 requests 0 expect_counted managed-hsm:hsm1 requests 0 \
    clean pkcs11-tool --module "$AKV_MODULE" -L
has '^Slot 0 (0x0)' '^Slot 1 (0x1)' 'token label        : kv1$' 'token label        : hsm1$' \
    'token model        : Key Vault$' 'token model        : Managed HSM$' \
    'token flags        : rng, token initialized, PIN initialized$'
[ "$(sed -n 's/ *serial num *: *//p' shown | sort -u | wc -l)" -eq 2 ] ||
    fail "two tokens, not two serial numbers: $(cat shown)"
cp shown slots
clean pkcs11-tool --module "$AKV_MODULE" -L
cmp slots shown || fail 'slots differ from one process to the next'
clean pkcs11-tool --module "$AKV_MODULE" -I
has '^Cryptoki version 3.2$'
clean pkcs11-tool --module "$AKV_MODULE" --list-interfaces
has 'version: 3.2$' 'version: 3.0$' 'version: 2.40$'

for TOKEN in kv1 hsm1; do
    say "$TOKEN: mechanisms"
    expect_counted "$(service_of $TOKEN)" requests 0 clean p11 -M
    has '^  RSA-PKCS-KEY-PAIR-GEN, keySize={2048,4096}, generate_key_pair' \
        '^  RSA-PKCS, keySize={2048,4096}, encrypt, decrypt, sign, sign_recover, verify,' \
        '^  ECDSA, keySize={256,521}, sign, verify' '^  SHA256, digest'
done

TOKEN=kv1
say "$TOKEN: objects of every kind; one list request, then one for each key and certificate"
keys=$(awk '/^\[\[keys/ { n++ } /service = "hsm1"/ { n-- } END { print n }' \
    "$AKV_CLIENTS/pkcs11-tool/objects.toml")
expect_counted vault:kv1 keys/list 1 expect_counted vault:kv1 certificates/get 2 \
    expect_counted vault:kv1 keys/get $((7 + 2 + keys)) clean p11 -O
has '^Private Key Object; RSA' '^Public Key Object; RSA 4096 bits' '^Private Key Object; EC' \
    '^Public Key Object; EC  EC_POINT 384 bits' '^Certificate Object; type = X.509 cert' \
    '^  subject:    DN: O=Curves, CN=localhost' '^  label:      rsa2048$' \
    '^  Usage:      decrypt, sign, unwrap$' '^  Access:     sensitive'
[ "$(shown privkey idle Usage)" = none ] || fail "a disabled key has usages: $(cat shown)"
[ "$(shown privkey tls ID)" = "$(shown cert tls ID)" ] || fail 'a certificate pairs with no key'

say "$TOKEN: a certificate as it is"
p11 --read-object --type cert --id "$(shown cert tls ID)" --output-file tls.der
openssl x509 -inform DER -in tls.der -noout -pubkey >tls.pub
choose tls
p11 --read-object --type pubkey --id "$ID" --output-file tls-key.der
openssl pkey -pubin -inform DER -in tls-key.der | diff - tls.pub

TOKEN=hsm1
say "$TOKEN: objects; a secret key's value stays where it is"
# pkcs11-tool 0.23 asks every secret key, also a sensitive one, for its value, and calls the refusal
# a warning; with any module. The length is not told by the service before api-version 2025-07-01.
p11 -O >shown 2>warnings
has '^Secret Key Object; AES' '^Private Key Object; RSA' '^Public Key Object; EC'
if grep 'failed' warnings | grep -v -e '(VALUE) failed: rv = CKR_ATTRIBUTE_SENSITIVE' \
    -e '(VALUE_LEN) failed: rv = CKR_ATTRIBUTE_TYPE_INVALID'; then
    fail 'warnings of -O'
fi
sed 's/^service = .*/&\napi_version = "2025-07-01"/' "$AKV_PKCS11_CONFIG" >newer.toml
AKV_PKCS11_CONFIG=$PWD/newer.toml p11 -O --type secrkey >shown 2>warnings
has '^Secret Key Object; AES length 32$'
if grep failed warnings | grep -v '(VALUE) failed: rv = CKR_ATTRIBUTE_SENSITIVE'; then
    fail 'warnings of -O'
fi
