# p11-kit serves the module to other processes over a socket, with a child for each connection. Many
# clients at once; a client that is killed.

. "$AKV_CLIENTS/lib.sh"

client=$(pkg-config --variable=p11_module_path p11-kit-1 2>/dev/null || true)
for folder in "$client" /usr/lib/*/pkcs11 /usr/lib64/pkcs11 /usr/lib/pkcs11; do
    client=$folder/p11-kit-client.so
    if [ -f "$client" ]; then break; fi
done
[ -f "$client" ] || fail "p11-kit-client.so is missing: apt-get install p11-kit-modules"

export XDG_RUNTIME_DIR="$PWD"
p11-kit server --sh --name "$PWD/socket" --provider "$AKV_MODULE" \
    "pkcs11:token=kv1" "pkcs11:token=hsm1" >server.sh 2>server.log ||
    fail "p11-kit server: $(cat server.log)"
. ./server.sh
trap 'kill "$P11_KIT_SERVER_PID"' EXIT
# What the clients have beside the socket is nothing.
for name in $(env | sed -n 's/^\(AKV_PKCS11_[A-Z_]*\|AZURE_[A-Z_]*\)=.*/\1/p'); do
    unset "$name"
done
served() { pkcs11-tool --module "$client" "$@"; }
children() { ps --ppid "$P11_KIT_SERVER_PID" -o pid= | wc -l; }

say "tokens and objects, through the socket"
served --list-token-slots >slots
[ "$(grep -c 'token label *: *\(kv1\|hsm1\)$' slots)" -eq 2 ] || fail "$(cat slots)"
for token in kv1 hsm1; do
    # (p11-kit 0.24 cannot pass CKA_ALLOWED_MECHANISMS on, and pkcs11-tool says so.)
    served --token-label "$token" --list-objects --type privkey >keys 2>list.log
    for key in rsa2048 rsa4096 p256 p384; do
        grep -q "label: *$key\$" keys || fail "$token has no $key: $(cat keys)"
    done
    awk '$1 == "label:" { here = ($2 == "rsa2048") } here && $1 == "ID:" { print $2 }' keys >"$token.id"
done

# sign TOKEN NUMBER: one process, one connection, one signature, verified without the module.
echo "what the clients sign" >data
sign() {
    served --token-label "$1" --sign --mechanism SHA256-RSA-PKCS --id "$(cat "$1.id")" \
        --input-file data --output-file "signature-$1-$2" 2>"log-$1-$2" ||
        fail "client $2 of $1: $(cat "log-$1-$2")"
    openssl dgst -sha256 -verify "$1.pem" -signature "signature-$1-$2" data >/dev/null ||
        fail "the signature of client $2 of $1 is wrong"
}
for token in kv1 hsm1; do
    served --token-label "$token" --read-object --type pubkey --label rsa2048 |
        openssl pkey -pubin -inform DER -out "$token.pem"
done

say "8 clients at once, on each token"
all() {
    clients=
    for number in $(seq 8); do
        sign "$1" "$number" &
        clients="$clients $!"
    done
    for one in $clients; do wait "$one" || fail "a client of $1"; done
}
expect_counted vault:kv1 keys/sign 8 all kv1
expect_counted managed-hsm:hsm1 keys/sign 8 all hsm1

say "a client that is killed takes its child with it, and nobody else"
# It waits for data that nobody writes.
mkfifo never
exec 3<>never
pkcs11-tool --module "$client" --token-label kv1 --sign --mechanism SHA256-RSA-PKCS \
    --id "$(cat kv1.id)" --input-file never --output-file never-signed >victim.log 2>&1 3<&- &
victim=$!
# (Killed before, it may leave its child an answer to write, which is p11-kit's own SIGPIPE.)
reads() {
    [ "$(cat "/proc/$victim/comm")" = pkcs11-tool ] &&
        find "/proc/$victim/fd" -lname '*/never' 2>/dev/null | grep -q .
}
rounds=0
until reads; do
    rounds=$((rounds + 1))
    [ "$rounds" -lt 100 ] || fail "the client does not get to its data: $(cat victim.log)"
    sleep 0.1
done
[ "$(children)" -eq 1 ] || fail "no child serves the client: $(cat victim.log)"
kill -KILL "$victim"
sign kv1 after
rounds=0
while [ "$(children)" -gt 0 ]; do
    rounds=$((rounds + 1))
    [ "$rounds" -lt 100 ] || fail "children are left: $(ps --ppid "$P11_KIT_SERVER_PID" -o pid=,args=)"
    sleep 0.1
done
[ "$(find "/proc/$P11_KIT_SERVER_PID/task" -mindepth 1 -maxdepth 1 | wc -l)" -eq 1 ] ||
    fail "the server has threads"
[ ! -s server.log ] || fail "the server said: $(cat server.log)"
