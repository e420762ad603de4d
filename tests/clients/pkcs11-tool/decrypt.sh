# Decryption by the service of what the openssl command encrypted with the exported public key.
. "$AKV_CLIENTS/pkcs11-tool/tool.sh"

# decrypt OPTIONS…: `encrypted` becomes `plaintext` again, by one request.
decrypt() {
    rm -f decrypted
    expect_counted "$SERVICE" keys/decrypt 1 \
        p11 --decrypt --id "$ID" --input-file encrypted --output-file decrypted "$@"
    cmp plaintext decrypted
}

for key in $RSA_KEYS; do
    export_key "$key"
    bytes=$((${key#rsa} / 8))

    say "$TOKEN $key RSA-PKCS, up to the longest there is"
    for length in 1 48 $((bytes - 11)); do
        openssl rand -out plaintext $length
        openssl pkeyutl -encrypt -pubin -inkey "$key.pem" -in plaintext -out encrypted
        decrypt -m RSA-PKCS
    done

    for hash in SHA-1:20 SHA256:32; do
        say "$TOKEN $key RSA-PKCS-OAEP $hash"
        name=$(echo ${hash%:*} | tr -d - | tr SHA sha)
        for length in 1 $((bytes - 2 * ${hash#*:} - 2)); do
            openssl rand -out plaintext $length
            openssl pkeyutl -encrypt -pubin -inkey "$key.pem" -in plaintext -out encrypted \
                -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:"$name" -pkeyopt rsa_mgf1_md:"$name"
            decrypt -m RSA-PKCS-OAEP --hash-algorithm ${hash%:*} --mgf "MGF1-$(echo ${hash%:*} | tr -d -)"
        done
    done

    say "$TOKEN $key: parameters that the service has no name for"
    for wrong in '--hash-algorithm SHA384 --mgf MGF1-SHA384' '--hash-algorithm SHA256 --mgf MGF1-SHA1'; do
        # shellcheck disable=SC2086 # options and their values
        expect_counted "$SERVICE" keys/decrypt 0 refused p11 --decrypt --id "$ID" -m RSA-PKCS-OAEP \
            $wrong --input-file encrypted --output-file decrypted
    done

    say "$TOKEN $key: not a ciphertext of this key"
    openssl rand -out noise "$bytes"
    printf '\000' | dd of=noise conv=notrunc 2>/dev/null # below the modulus
    refused p11 --decrypt --id "$ID" -m RSA-PKCS-OAEP --hash-algorithm SHA256 --mgf MGF1-SHA256 \
        --input-file noise --output-file decrypted
    printf short >noise
    refused p11 --decrypt --id "$ID" -m RSA-PKCS-OAEP --hash-algorithm SHA256 --mgf MGF1-SHA256 \
        --input-file noise --output-file decrypted
done
