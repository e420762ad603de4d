# Signatures with every mechanism that the token lists for signing, by every key that allows it:
# made by the service, verified by the openssl command with the exported public key, and by the module.
. "$AKV_CLIENTS/pkcs11-tool/tool.sh"

printf 'What is signed.' >data
printf 'What is not signed' >other
: >empty
for hash in sha1 sha224 sha256 sha384 sha512; do digest $hash data; done

# openssl_dgst HASH OPTIONS…: does the openssl command agree that `signature` signs `data`?
openssl_dgst() {
    hash=$1
    shift
    openssl dgst "-$hash" -verify "$key.pem" -signature signature "$@" data
}

# openssl_raw FILE OPTIONS…: the same, for a signature over a digest or bytes given as they are.
openssl_raw() {
    file=$1
    shift
    openssl pkeyutl -verify -pubin -inkey "$key.pem" -in "$file" -sigfile signature "$@"
}

# digest_info HASH: the DER that PKCS#1 v1.5 pads, in the file HASH.info.
digest_info() {
    cat >info.cnf <<EOF
asn1 = SEQUENCE:info
[info]
algorithm = SEQUENCE:algorithm
digest = FORMAT:HEX,OCTETSTRING:$(od -An -v -tx1 "$1.digest" | tr -d ' \n')
[algorithm]
oid = OID:$1
parameters = NULL
EOF
    openssl asn1parse -noout -genconf info.cnf -out "$1.info"
}

rsa_pkcs() {
    for hash in sha256 sha384 sha512; do
        digest_info $hash
        sign signature $hash.info -m RSA-PKCS
        openssl_dgst $hash
        verify signature "$hash.info" -m RSA-PKCS
    done
    not_verified signature data -m RSA-PKCS
    # Anything else is signed as it is where the service has RSNULL, and refused elsewhere.
    case $TOKEN in
    hsm*) refused p11 --sign --id "$ID" -i data -o signature -m RSA-PKCS ;;
    *)
        sign signature data -m RSA-PKCS
        openssl_raw data -pkeyopt rsa_padding_mode:pkcs1
        verify signature data -m RSA-PKCS
        ;;
    esac
}

hash_rsa_pkcs() {
    sign signature data -m "$mechanism"
    openssl_dgst "$(hash_of "$mechanism")"
    verify signature data -m "$mechanism"
    not_verified signature other -m "$mechanism"
}

rsa_pkcs_pss() {
    for size in 256 384 512; do
        set -- -m RSA-PKCS-PSS --hash-algorithm SHA$size --mgf MGF1-SHA$size
        for length in -1 $((size / 8)); do
            sign signature sha$size.digest "$@" --salt-len $length
            openssl_raw sha$size.digest -pkeyopt digest:sha$size \
                -pkeyopt rsa_padding_mode:pss -pkeyopt rsa_pss_saltlen:$((size / 8))
            verify signature sha$size.digest "$@" --salt-len $length
        done
    done
    not_verified signature sha512.digest -m RSA-PKCS-PSS --hash-algorithm SHA512 --salt-len 0
    # The service fixes MGF and salt length; others are refused here, before it is asked.
    for wrong in '--salt-len 20' '--salt-len 0' '--mgf MGF1-SHA1'; do
        # shellcheck disable=SC2086 # an option and its value
        expect_counted "$SERVICE" keys/sign 0 refused p11 --sign --id "$ID" -i sha256.digest \
            -o signature -m RSA-PKCS-PSS --hash-algorithm SHA256 $wrong
    done
}

hash_rsa_pkcs_pss() {
    hash=$(hash_of "$mechanism")
    length=$((${hash#sha} / 8))
    sign signature data -m "$mechanism"
    openssl_dgst "$hash" -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:$length
    verify signature data -m "$mechanism"
    not_verified signature other -m "$mechanism"
    sign signature data -m "$mechanism" --mgf "MGF1-SHA${hash#sha}" --salt-len $length
    openssl_dgst "$hash" -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:$length
}

# ecdsa INPUT OPTIONS…: in each form a signature can have; `openssl…` says if it holds.
ecdsa() {
    input=$1
    shift
    sign signature "$input" -m "$mechanism" -f rs
    [ "$(wc -c <signature)" -eq $((${key#p} / 4)) ] || fail "r || s has $(wc -c <signature) bytes"
    verify signature "$input" -m "$mechanism" -f rs
    not_verified signature other -m "$mechanism" -f rs
    for format in openssl sequence; do
        sign signature "$input" -m "$mechanism" -f $format
        "$@"
        verify signature "$input" -m "$mechanism" -f $format
    done
}

mechanisms=$(listed sign)
[ -n "$mechanisms" ] || fail "token $TOKEN lists no mechanism that signs"

for key in $RSA_KEYS $EC_KEYS; do
    export_key "$key"
    allowed=$(p11 -O --type privkey |
        sed -n "/^  label:  *$key\$/,/^  Unique/s/^  Allowed mechanisms: //p")
    for mechanism in $mechanisms; do
        case $key:$mechanism in
        rsa*:ECDSA* | p[0-9]*:*RSA-*) continue ;;
        esac
        say "$TOKEN $key $mechanism"
        case ",$allowed," in
        *,"$mechanism",*) ;;
        # What the token lists for session keys alone: a key of the service says so, and refuses.
        *)
            expect_counted "$SERVICE" keys/sign 0 refused p11 --sign --id "$ID" -i data \
                -o signature -m "$mechanism"
            continue
            ;;
        esac
        case $mechanism in
        RSA-PKCS) rsa_pkcs ;;
        SHA*-RSA-PKCS) hash_rsa_pkcs ;;
        RSA-PKCS-PSS) rsa_pkcs_pss ;;
        SHA*-RSA-PKCS-PSS) hash_rsa_pkcs_pss ;;
        # Digests shorter and longer than the curve's order too (FIPS 186-5, 6.4: leftmost bits).
        ECDSA) for hash in sha1 sha256 sha384 sha512; do
            ecdsa $hash.digest openssl_raw $hash.digest
        done ;;
        ECDSA-SHA*) ecdsa data openssl_dgst "$(hash_of "$mechanism")" ;;
        *) fail "the token lists $mechanism, which this script does not check" ;;
        esac
    done

    say "$TOKEN $key: nothing at all, and 3 MB in many parts"
    case $key in
    rsa*) set -- -m SHA256-RSA-PKCS ;;
    p*) set -- -m ECDSA-SHA256 -f openssl ;;
    esac
    [ -f big ] || head -c 3000000 /dev/zero | openssl enc -aes-128-ctr -K 0 -iv 0 -nosalt -out big
    for input in empty big; do
        sign signature $input "$@"
        openssl dgst -sha256 -verify "$key.pem" -signature signature $input
        verify signature $input "$@"
    done
done
