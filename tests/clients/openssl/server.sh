# openssl s_server: TLS 1.2 and 1.3 with keys in the service, one signature for each handshake.
. "$AKV_CLIENTS/openssl/engine.sh"

trap '[ -z "$server" ] || kill "$server"' EXIT
server=

# await FILE PATTERN: until the pattern is in the file.
await() {
    for _ in $(seq 200); do
        if grep -q "$2" "$1"; then return; fi
        kill -0 "$server" || fail "the server ended: $(cat "$1")"
        sleep 0.05
    done
    fail "no '$2' after ten seconds in: $(cat "$1")"
}

# handshake OPTIONS…: of a client that checks the server's certificate, and asks for a page.
handshake() {
    printf 'GET / HTTP/1.0\r\n\r\n' | timeout 30 openssl s_client -connect "127.0.0.1:$port" \
        -CAfile "$key.crt" -verify_return_error -ign_eof "$@" >client 2>&1 || fail "$(cat client)"
    grep -q '^HTTP/1.0 200' client || fail "$(cat client)"
}

for key in $RSA_KEYS $EC_KEYS; do
    openssl_engine req -new -x509 -engine pkcs11 -keyform engine -key "$(uri "$key")" -sha256 \
        -subj '/CN=localhost' -days 30 -out "$key.crt"
    : >"$key.log"
    openssl_engine s_server -engine pkcs11 -keyform engine -key "$(uri "$key")" -cert "$key.crt" \
        -www -accept 127.0.0.1:0 >"$key.log" 2>&1 &
    server=$!
    await "$key.log" '^ACCEPT '
    port=$(sed -n 's/^ACCEPT 127.0.0.1:\([0-9]*\)$/\1/p' "$key.log")
    for version in -tls1_2 -tls1_3; do
        say "$TOKEN $key $version"
        signs handshake $version
        signs handshake $version
    done
    case $key in
    rsa*)
        say "$TOKEN $key -tls1_2, PKCS#1 v1.5"
        signs handshake -tls1_2 -sigalgs RSA+SHA256
        ;;
    esac
    kill "$server"
    wait "$server" || :
    server=
done
