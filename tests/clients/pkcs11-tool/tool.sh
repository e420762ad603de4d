# What the scripts beside this one share. $1 is the token's label.
. "$AKV_CLIENTS/lib.sh"

TOKEN=$1
SERVICE=$(service_of "$TOKEN")
RSA_KEYS='rsa2048 rsa4096'
EC_KEYS='p256 p384'

p11() { pkcs11-tool --module "$AKV_MODULE" --token-label "$TOKEN" "$@"; }

# shown TYPE LABEL FIELD: one field of an object, as -O shows it. (With -O and with --sign,
# pkcs11-tool 0.23 does not look at a --label: all objects are shown, and the first key signs.)
shown() {
    p11 -O --type "$1" | awk -v label="$2" -v field="$3:" '
        { name = $1; sub(/^ *[^ ]+ +/, "") }
        name ~ /^(Private|Public|Secret|Certificate|Data)$/ { value = ""; found = 0 }
        name == field { value = $0 }
        name == "label:" { found = $0 == label }
        found && value != "" { print value; exit }'
}

# Sets ID to the CKA_ID of the key pair with this label.
choose() {
    ID=$(shown privkey "$1" ID)
    [ -n "$ID" ] || fail "no private key '$1' on token $TOKEN"
}

# export_key LABEL: its public key, as the token tells it, becomes LABEL.pem; chooses it too.
export_key() {
    choose "$1"
    case $1 in
    *rsa*) p11 --read-object --type pubkey --id "$ID" --output-file "$1.der" ;;
    *) export_ec "$1" ;;
    esac
    openssl pkey -pubin -inform DER -in "$1.der" -out "$1.pem"
}

# Not by --read-object: with OpenSSL 3 pkcs11-tool 0.23 says "cannot create EVP_PKEY" of EC keys now
# and then, whatever the token (OpenSC issue 3200). From the attributes that -O shows, then.
export_ec() {
    case $(shown pubkey "$1" EC_PARAMS) in
    06082a8648ce3d030107) curve=prime256v1 ;;
    06052b81040022) curve=secp384r1 ;;
    06052b81040023) curve=secp521r1 ;;
    *) fail "unexpected EC_PARAMS of $1" ;;
    esac
    point=$(shown pubkey "$1" EC_POINT | sed 's/^04\(41\|61\|8185\)//')
    cat >"$1.cnf" <<EOF
asn1 = SEQUENCE:key
[key]
algorithm = SEQUENCE:algorithm
point = FORMAT:HEX,BITSTRING:$point
[algorithm]
kind = OID:id-ecPublicKey
curve = OID:$curve
EOF
    openssl asn1parse -noout -genconf "$1.cnf" -out "$1.der"
}

# sign SIGNATURE DATA OPTIONS…: with the chosen key; one signature made by the service.
sign() {
    signature=$1 data=$2
    shift 2
    expect_counted "$SERVICE" keys/sign 1 \
        p11 --sign --id "$ID" --input-file "$data" --output-file "$signature" "$@"
}

# verify SIGNATURE DATA OPTIONS…: with the chosen key; computed here, nothing asked.
verify() {
    expect_counted "$SERVICE" keys/verify 0 verdict "$@"
    grep -q 'Signature is valid' verified || fail "$(cat verified)"
}

# not_verified SIGNATURE DATA OPTIONS…: recognised as not the signature of this data.
not_verified() {
    verdict "$@"
    grep -q 'Invalid signature' verified || fail "not called invalid: $(cat verified)"
}

# What pkcs11-tool says of a signature, in the file `verified`; its exit code is of no help.
verdict() {
    signature=$1 data=$2
    shift 2
    p11 --verify --id "$ID" --input-file "$data" --signature-file "$signature" "$@" \
        >verified 2>&1 || :
}

# digest HASH DATA: the hash of a file, in the file HASH.digest.
digest() { openssl dgst "-$1" -binary -out "$1.digest" "$2"; }

# listed FLAG: the mechanisms of the token that have this flag (sign, decrypt …).
listed() { p11 -M | sed -n "/, $1\(,\|\$\)/s/^  \([^,]*\),.*/\1/p"; }

# hash_of MECHANISM: sha256 from SHA256-RSA-PKCS-PSS or ECDSA-SHA256, sha3-256 from ECDSA-SHA3-256.
hash_of() {
    printf '%s\n' "$1" | sed -n -e 's/.*SHA3-\([0-9]*\).*/sha3-\1/p;t' -e 's/.*SHA\([0-9]*\).*/sha\1/p'
}
