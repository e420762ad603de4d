# Identities that may do only what a TLS server needs: to get and to sign, with the keys named in
# the configuration; to sign alone, with the public keys beside it. Real handshakes, RSA and EC, by
# workers that are reloaded and replaced; nothing is asked for that the identity may not.

. "$AKV_CLIENTS/nginx/nginx.sh"

keys="rsa2048 p256"
prepare 'keys = ["rsa2048", "p256"]'
each certify
printf '[log]\nlevel = "info"\nsink = "file:module.log"\n' >>secret/config.toml

# identity NAME SECRET: from now on the module is this one.
identity() {
    sed -i "s|client_id = \"[^\"]*\"|client_id = \"$1\"|" secret/config.toml
    printf %s "$2" >secret/client-secret
}

# counted OPERATION: at both services.
counted() { echo $(($(counter vault:kv1 "$1") + $(counter managed-hsm:hsm1 "$1"))); }

# served GETS: nginx from start to end, with so many questions for keys at most, in all.
served() {
    signed=$(counted keys/sign) got=$(counted keys/get) requests=$(counted requests)
    refused_before=$(counted 401)
    : >secret/module.log
    configure on
    start
    as_www_data
    for version in -tls1_2 -tls1_3; do
        each_handshake() { handshake "$1" "$2" "$version"; }
        each each_handshake
    done
    twenty() { storm "$1" "$2" 20; }
    each twenty
    reload
    victim=$(workers | head -n 1)
    expected="$victim exited on signal 9"
    kill -KILL "$victim"
    replaced() { [ "$(workers | wc -l)" -eq 2 ] && ! workers | grep -qx "$victim"; }
    wait_for 30 replaced
    each twenty
    quit
    signed=$(($(counted keys/sign) - signed)) got=$(($(counted keys/get) - got))
    [ "$signed" -eq $((2 * 4 + 2 * 4 * 20)) ] || fail "$signed signatures"
    [ "$got" -le "$1" ] || fail "$got keys were asked for"
    challenged=$(($(counted 401) - refused_before))
    requests=$(($(counted requests) - requests - challenged))
    [ "$requests" -eq $((signed + got)) ] || fail "$requests requests for $signed and $got"
    [ ! -s secret/module.log ] || fail "the module complains: $(cat secret/module.log)"
    say "  $signed signatures, $got keys asked for, and nothing else"
}

say "to get and to sign"
identity named-keys of-who-may-get-and-sign
served 100

say "to sign alone: nginx does not start, and reads what to grant"
identity signer of-who-may-sign-and-nothing-else
configure on
if nginx_command -t 2>test.log; then fail "nginx -t succeeded"; fi
grep -q "lacks data action Microsoft.KeyVault/vaults/keys/read .*access policy: key permission get.*; grant it on the vault or its keys/rsa2048" \
    secret/module.log || fail "no such line in: $(cat secret/module.log)"

say "to sign alone, with the public keys at hand"
for token in $tokens; do
    for key in $keys; do
        openssl x509 -in "$token-$key.pem" -noout -pubkey >"secret/$token-$key.key"
    done
    sed -i "s|^label = \"$token\"|&\npublic_keys = { rsa2048 = \"$token-rsa2048.key\", p256 = \"$token-p256.key\" }|" \
        secret/config.toml
done
served 0
