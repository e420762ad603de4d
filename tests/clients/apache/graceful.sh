# Graceful restarts under load: no request is lost, old workers leave, nothing piles up in the
# master. Arguments: the MPM, how many restarts, lines of configuration for it.

. "$AKV_CLIENTS/apache/apache.sh"

mpm=$1 restarts=$2
shift 2
keys="rsa2048 p256"
prepare
each certify
configure "$mpm" "$@"

say "configtest"
apache_command -t 2>test.log || fail "apache2 -t: $(cat test.log)"

start
as_www_data
both_versions() { handshake "$@" -tls1_3; handshake "$@" -tls1_2; }
each both_versions

# A round so that the master has become itself.
graceful
first=$(descriptors "$master")

say "load on four keys, $restarts graceful restarts meanwhile"
signed_before=$(($(counter vault:kv1 keys/sign) + $(counter managed-hsm:hsm1 keys/sign)))
load_begin
old=
for _ in $(seq "$restarts"); do
    old="$old $(workers | xargs)"
    graceful
    sleep 0.3
done
load_end
signed=$(($(counter vault:kv1 keys/sign) + $(counter managed-hsm:hsm1 keys/sign) - signed_before))
say "$total requests answered, $signed signatures"
[ "$signed" -eq "$total" ] || fail "$signed signatures for $total handshakes"

say "old workers leave"
# shellcheck disable=SC2086 # a list of numbers
wait_for 30 gone $old
last=$(descriptors "$master")
say "descriptors of the master: $first, then $last"
[ "$last" -le $((first + 4)) ] || fail "the master had $first descriptors, and has $last"
[ "$mpm" != prefork ] || single_threaded
each handshake

say "quit"
quit
