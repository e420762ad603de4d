# openssl pkeyutl -decrypt: both paddings, up to the longest plaintext.
. "$AKV_CLIENTS/openssl/engine.sh"

# pkeyutl LENGTH OPTIONS…: encrypted here, decrypted by the service.
pkeyutl() {
    openssl rand -out plaintext "$1"
    shift
    openssl pkeyutl -encrypt -pubin -inkey "$key.pem" "$@" -in plaintext -out encrypted
    rm -f decrypted
    expect_counted "$SERVICE" keys/decrypt 1 openssl_engine pkeyutl -decrypt -engine pkcs11 \
        -keyform engine -inkey "$(uri "$key")" "$@" -in encrypted -out decrypted
    cmp plaintext decrypted
}

for key in $RSA_KEYS; do
    export_key "$key"
    bytes=$((${key#rsa} / 8))
    say "$TOKEN $key PKCS#1 v1.5"
    for length in 1 48 $((bytes - 11)); do
        pkeyutl $length -pkeyopt rsa_padding_mode:pkcs1
    done
    for hash in sha1:20 sha256:32; do
        say "$TOKEN $key OAEP ${hash%:*}"
        for length in 1 $((bytes - 2 * ${hash#*:} - 2)); do
            pkeyutl $length -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:${hash%:*}
        done
    done
    say "$TOKEN $key: not a ciphertext of this key"
    { printf '\000'; openssl rand $((bytes - 1)); } >encrypted
    refused openssl_engine pkeyutl -decrypt -engine pkcs11 -keyform engine -inkey "$(uri "$key")" \
        -pkeyopt rsa_padding_mode:oaep -in encrypted -out decrypted
done
