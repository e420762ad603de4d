# Helpers of the scripts of `az`. `. "$AKV_CLIENTS/az/az.sh"`, under `sh -eu`.

export AZURE_CONFIG_DIR="$HOME/azure" AZURE_CORE_COLLECT_TELEMETRY=false

# fail TEXT…
fail() {
    printf 'FAILED: %s\n' "$*"
    exit 1
}

# keyvault ARGUMENTS…: `az keyvault …` succeeds. What it prints is `answer`, for `holds`.
keyvault() {
    echo "-- az keyvault $*"
    az keyvault "$@" --output json >answer || fail "az keyvault $*"
}

# key ARGUMENTS…: `az keyvault key …`.
key() { keyvault key "$@"; }

# holds EXPRESSION: of jq, true of the last answer.
holds() {
    jq --exit-status "$1" answer >/dev/null || fail "not so: $1, in: $(cat answer)"
}

# told EXPRESSION: of jq, what it gives of the last answer, without quotes.
told() { jq --exit-status --raw-output "$1" answer; }

# same A B: two files have the same content.
same() { cmp "$1" "$2" || fail "$1 and $2 differ"; }

# refused TEXT ARGUMENTS…: `az keyvault …` fails, and says TEXT.
refused() {
    text=$1
    shift
    echo "-- refused: az keyvault $*"
    if az keyvault "$@" >answer 2>refusal; then fail "was not refused: $(cat answer)"; fi
    grep --quiet --fixed-strings -e "$text" refusal || fail "no '$text' in: $(cat refusal)"
}

# digest HASH FILE: the digest, as az takes it.
digest() { openssl dgst "-$1" -binary "$2" | base64 -w0; }

# p11 ARGUMENTS…: pkcs11-tool with the module, on the token $TOKEN.
p11() { pkcs11-tool --module "$AKV_MODULE" --token-label "$TOKEN" "$@"; }

# byok_blob KEK KID KEY FILE: KEY (PKCS#8, or the bytes of a secret key) for the one who has the
# private part of KEK (PEM), in the form of Microsoft's "bring your own key" specification:
# CKM_RSA_AES_KEY_WRAP, made with the openssl command alone.
byok_blob() {
    openssl rand -out transfer.aes 32
    openssl pkeyutl -encrypt -pubin -inkey "$1" -in transfer.aes -out transfer.wrapped \
        -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha1 -pkeyopt rsa_mgf1_md:sha1
    openssl enc -id-aes256-wrap-pad -K "$(od -An -v -tx1 transfer.aes | tr -d ' \n')" \
        -iv A65959A6 -in "$3" >>transfer.wrapped
    ciphertext=$(base64 -w0 <transfer.wrapped | tr '+/' '-_' | tr -d =)
    jq --null-input --compact-output --arg kid "$2" --arg ciphertext "$ciphertext" '{
        schema_version: "1.0.0",
        header: {kid: $kid, alg: "dir", enc: "CKM_RSA_AES_KEY_WRAP"},
        ciphertext: $ciphertext,
        generator: "openssl"
    }' >"$4"
}

# id_of LABEL: CKA_ID of the private key. (With --sign, pkcs11-tool 0.23 does not look at --label.)
id_of() {
    p11 --list-objects --type privkey 2>/dev/null | awk -v label="$1" '
        $1 == "label:" { found = $2 == label }
        $1 == "ID:" && found { print $2; exit }'
}

# login CREDENTIAL…: as a service principal, which finds no subscriptions.
login() {
    echo "-- az login"
    az login --service-principal --username "$AZURE_CLIENT_ID" "$@" --tenant "$AZURE_TENANT_ID" \
        --allow-no-subscriptions >answer
    holds '.[0].user.type == "servicePrincipal"'
}

printf 'What is signed.' >data
