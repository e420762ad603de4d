# Four workers, twenty reloads while requests run: none is lost, old workers leave, nothing piles up in the master.

. "$AKV_CLIENTS/nginx/nginx.sh"

keys="rsa2048 p256"
reloads=20
worker_count=4
prepare
each certify
configure on
start
handshake kv1 rsa2048
handshake hsm1 p256

# A round so that the master has become itself: forked, and with its own connections.
reload
first=$(descriptors "$master")

say "load on four keys, $reloads reloads meanwhile"
signed_before=$(($(counter vault:kv1 keys/sign) + $(counter managed-hsm:hsm1 keys/sign)))
load_begin
old=
for _ in $(seq "$reloads"); do
    old="$old $(workers | xargs)"
    reload
    sleep 0.2
done
load_end
signed=$(($(counter vault:kv1 keys/sign) + $(counter managed-hsm:hsm1 keys/sign) - signed_before))
say "$total requests answered, $signed signatures"
[ "$signed" -eq "$total" ] || fail "$signed signatures for $total handshakes"
[ "$total" -ge 400 ] || fail "that was no load"

say "old workers leave"
# shellcheck disable=SC2086 # a list of numbers
wait_for 20 gone $old
[ "$(family | wc -l)" -eq 5 ] || fail "processes: $(family | xargs)"
single_threaded
last=$(descriptors "$master")
say "descriptors of the master: $first, then $last; of its workers: $(for w in $(workers); do descriptors "$w"; done | xargs)"
[ "$last" -le $((first + 4)) ] || fail "the master had $first descriptors, and has $last"
handshake kv1 p256
handshake hsm1 rsa2048

say "quit"
quit
