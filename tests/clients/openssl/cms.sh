# Signed and encrypted messages.
. "$AKV_CLIENTS/openssl/engine.sh"

printf 'What is signed.\n' >message
head -c 3000000 /dev/zero >big

for key in $RSA_KEYS $EC_KEYS; do
    openssl_engine req -new -x509 -engine pkcs11 -keyform engine -key "$(uri "$key")" -sha256 \
        -subj "/CN=$key of $TOKEN" -days 30 -out "$key.crt"
    for hash in sha256 sha384 sha512; do
        say "$TOKEN $key cms -sign $hash"
        signs openssl_engine cms -sign -engine pkcs11 -keyform engine -inkey "$(uri "$key")" \
            -signer "$key.crt" -md $hash -nodetach -binary -in message -outform DER \
            -out signed
        openssl cms -verify -inform DER -in signed -CAfile "$key.crt" -binary -out verified
        cmp message verified
    done
    say "$TOKEN $key cms -sign, the content apart, 3 MB"
    signs openssl_engine cms -sign -engine pkcs11 -keyform engine -inkey "$(uri "$key")" \
        -signer "$key.crt" -binary -in big -outform DER -out detached
    openssl cms -verify -inform DER -in detached -content big -CAfile "$key.crt" -binary -out verified
    cmp big verified
    refused openssl cms -verify -inform DER -in detached -content message -CAfile "$key.crt" -binary \
        -out verified
done

for key in $RSA_KEYS; do
    say "$TOKEN $key cms -sign PSS"
    signs openssl_engine cms -sign -engine pkcs11 -keyform engine -inkey "$(uri "$key")" \
        -signer "$key.crt" -md sha256 -keyopt rsa_padding_mode:pss -keyopt rsa_pss_saltlen:digest \
        -nodetach -binary -in message -outform DER -out signed
    openssl cms -verify -inform DER -in signed -CAfile "$key.crt" -binary -out verified
    cmp message verified

    say "$TOKEN $key cms -decrypt"
    openssl cms -encrypt -aes256 -binary -in message -outform DER -out encrypted \
        -recip "$key.crt" -keyopt rsa_padding_mode:oaep
    expect_counted "$SERVICE" keys/decrypt 1 openssl_engine cms -decrypt -engine pkcs11 \
        -keyform engine -inkey "$(uri "$key")" -recip "$key.crt" -binary -inform DER -in encrypted \
        -out decrypted
    cmp message decrypted
done
