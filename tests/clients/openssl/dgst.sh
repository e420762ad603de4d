# openssl dgst: each hash, PKCS#1 v1.5, PSS and ECDSA, over a few bytes, none and 3 MB.
. "$AKV_CLIENTS/openssl/engine.sh"

printf 'What is signed.' >data
printf 'What is not signed.' >other
: >empty
head -c 3000000 /dev/zero >big

# dgst HASH DATA OPTIONS…: signed by the service, verified here; and not verified for other data.
dgst() {
    hash=$1 input=$2
    shift 2
    signs openssl_engine dgst -engine pkcs11 -keyform engine -sign "$(uri "$key")" "-$hash" "$@" \
        -out signature "$input"
    openssl dgst "-$hash" -verify "$key.pem" "$@" -signature signature "$input"
    refused openssl dgst "-$hash" -verify "$key.pem" "$@" -signature signature other
}

for key in $RSA_KEYS; do
    export_key "$key"
    # A Managed HSM signs SHA-2 of 256 bits and more; a vault all, by RSNULL.
    hashes='sha256 sha384 sha512'
    case $TOKEN in
    hsm*) for hash in sha1 sha224; do
        refused openssl_engine dgst -engine pkcs11 -keyform engine -sign "$(uri "$key")" -$hash data
    done ;;
    *) hashes="sha1 sha224 $hashes" ;;
    esac
    for hash in $hashes; do
        say "$TOKEN $key $hash"
        dgst "$hash" data
    done
    for hash in sha256 sha384 sha512; do
        say "$TOKEN $key $hash PSS"
        dgst $hash data -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest
    done
    say "$TOKEN $key: a salt that the service does not make is refused"
    refused openssl_engine dgst -engine pkcs11 -keyform engine -sign "$(uri "$key")" -sha256 \
        -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:max -out signature data
done

for key in $EC_KEYS; do
    export_key "$key"
    for hash in sha1 sha224 sha256 sha384 sha512; do
        say "$TOKEN $key $hash"
        dgst $hash data
    done
done

for key in rsa2048 p256; do
    say "$TOKEN $key: nothing at all, and 3 MB"
    for input in empty big; do dgst sha256 $input; done
done

say "$TOKEN: a key by its id, with a PIN that nobody asks for"
key=p256
id=$(pkcs11-tool --module "$AKV_MODULE" --token-label "$TOKEN" -O --type pubkey |
    awk '/label:/ { found = $2 == "p256" } /ID:/ && !/Unique/ && found { print $2 }')
signs openssl_engine dgst -engine pkcs11 -keyform engine -sha256 -out signature -sign \
    "pkcs11:token=$TOKEN;id=$(echo "$id" | sed 's/../%&/g');type=private;pin-value=1234" data
openssl dgst -sha256 -verify p256.pem -signature signature data

say "$TOKEN: a key that is not there ends in an error, not in a crash"
status=0
openssl_engine dgst -engine pkcs11 -keyform engine -sign "$(uri nobody)" -sha256 data || status=$?
[ $status -eq 1 ]
