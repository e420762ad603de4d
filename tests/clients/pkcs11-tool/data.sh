# Secrets of a vault as data objects; $1 is the vault.
. "$AKV_CLIENTS/pkcs11-tool/tool.sh"

say 'without `secrets` in the configuration there is none'
p11 -O --type data >shown
[ ! -s shown ] || fail "$(cat shown)"
[ "$(counter "$SERVICE" secrets/list)" -eq 0 ] || fail 'the service was asked for secrets'

sed 's/^service = .*/&\nsecrets = ["*"]/' "$AKV_PKCS11_CONFIG" >secrets.toml
export AKV_PKCS11_CONFIG="$PWD/secrets.toml"

say 'they are listed, by name, without their values'
expect_counted "$SERVICE" secrets/get 0 p11 -O --type data >shown
grep -q "label: *'database-password'" shown || fail "$(cat shown)"
grep -q "application: *'Azure Key Vault'" shown || fail "$(cat shown)"
! grep -q "tls" shown || fail "the secret of a certificate: $(cat shown)"

say 'one is read, by one request'
expect_counted "$SERVICE" secrets/get 1 \
    p11 --read-object --type data --label database-password --output-file value
printf 'correct horse' | cmp - value

say 'that of a certificate cannot be'
refused p11 --read-object --type data --label tls --output-file none
[ ! -s none ] || fail 'something was written'
