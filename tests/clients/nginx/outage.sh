# The service is not there when nginx starts; goes away while it runs, by refusing connections and
# by saying nothing; and comes back. nginx says what is wrong, never hangs, and needs no restart.

. "$AKV_CLIENTS/nginx/nginx.sh"

tokens=kv1
keys="rsa2048 p256"

# network up|down: of the way to the vault. The authority that gives tokens stays.
network() {
    case $1 in
    up)
        rm -f proxy.port
        perl "$AKV_CLIENTS/nginx/proxy.pl" "$vault_port" proxy.port "${proxy_port:-0}" &
        proxy=$!
        wait_for 10 test -f proxy.port
        proxy_port=$(cat proxy.port)
        ;;
    down)
        kill "$proxy"
        wait "$proxy" 2>/dev/null || true
        ;;
    esac
}

# within SECONDS COMMAND…: it ends in that time, with whatever code, which is in $code.
within() {
    within_limit=$1
    shift
    within_started=$(date +%s%N)
    code=0
    "$@" || code=$?
    within_took=$((($(date +%s%N) - within_started) / 1000000))
    [ "$within_took" -le $((within_limit * 1000)) ] || fail "$within_took ms: $*"
}

# answered [OPTION…]: a request to nginx, of which only the exit code counts.
answered() {
    curl --silent --fail --no-sessionid --max-time 60 --output answer --cacert kv1-rsa2048.pem \
        --resolve "kv1-rsa2048:$port:127.0.0.1" "$@" "https://kv1-rsa2048:$port/"
}

prepare 'timeout = "2s"' 'connect_timeout = "1s"' 'find_timeout = "3s"'
vault_port=$(sed -n '/label = "kv1"/,/^\[\[/ s|^endpoint = ".*:\([0-9]*\)"$|\1|p' secret/config.toml)
network up
trap 'kill "$proxy" || true' EXIT
# As in the cloud: the service's own name, and the address that name has today.
sed -i "s|^endpoint = .*:$vault_port\"|endpoint = \"https://kv1.vault.azure.net:$vault_port\"\naddress = \"127.0.0.1:$proxy_port\"|" secret/config.toml
each certify
configure on

storm_of_30() { storm "$1" "$2" 30; }

# recovered_both TOKEN KEY: by whichever worker, 30 times without a failure, in the end.
recovered_both() {
    wait_for 15 storm_succeeds "$1" "$2"
    storm "$1" "$2" 30
}
storm_succeeds() { (trap - EXIT && storm "$1" "$2" 30) >/dev/null; }

# told FILE SENTENCE…: the file has each of these.
told() {
    told_file=$1
    shift
    for sentence in "$@"; do
        grep -q "$sentence" "$told_file" || fail "no '$sentence' in: $(cat "$told_file")"
    done
}
unloadable='\[emerg\].* cannot load certificate key "engine:pkcs11:'

say "nginx -t, connections refused"
network down
within 10 nginx_command -t 2>test.log
[ "$code" -ne 0 ] || fail "nginx -t succeeded"
told test.log "C_FindObjectsInit: .* no connection: .*Connection refused" "$unloadable"
say "  says so after $within_took ms"

say "nginx -t, the service says nothing"
network up
kill -STOP "$PPID"
within 10 nginx_command -t 2>test.log
kill -CONT "$PPID"
[ "$code" -ne 0 ] || fail "nginx -t succeeded"
told test.log "C_FindObjectsInit: .* no connection within 1s" "$unloadable"
say "  says so after $within_took ms"

start
trap 'end_nginx; kill -CONT "$PPID"; kill "$proxy" || true' EXIT
each storm_of_30
before=$(workers | xargs)

say "connections refused while it runs: the client is told, within the deadline"
network down
within 5 answered
[ "$code" -eq 35 ] || fail "curl ended with $code"
say "  after $within_took ms"
told error.log "C_Sign: token 'kv1': sign with key rsa2048/.* no connection: .*Connection refused"

say "reload meanwhile: the old workers stay"
kill -HUP "$master"
wait_for 10 grep -q "$unloadable" error.log
[ "$(workers | xargs)" = "$before" ] || fail "workers $before, then $(workers | xargs)"

say "a worker is replaced meanwhile"
victim=$(workers | head -n 1)
survivor=$(workers | tail -n 1)
kill -KILL "$victim"
replaced() { [ "$(workers | wc -l)" -eq 2 ] && ! workers | grep -qx "$victim"; }
wait_for 10 replaced
kill -STOP "$survivor"
within 8 answered
[ "$code" -eq 35 ] || fail "curl ended with $code"

say "the network is back: both workers sign"
network up
# recovered: longest pause after failures 5 s.
recovered() {
    within 5 answered
    [ "$code" -eq 0 ]
}
wait_for 15 recovered
grep -qx "kv1-rsa2048 TLSv1.3 $(workers | grep -vx "$survivor")" answer || fail "$(cat answer)"
kill -CONT "$survivor"
each recovered_both
reload
each storm_of_30

say "the service says nothing while it runs"
kill -STOP "$PPID"
within 5 answered
kill -CONT "$PPID"
[ "$code" -eq 35 ] || fail "curl ended with $code"
say "  after $within_took ms"
told error.log "C_Sign: token 'kv1': sign with key rsa2048/.* no answer within the deadline"
wait_for 15 recovered
each recovered_both
single_threaded

say "quit"
expected="\[crit\].* SSL_do_handshake\(\) failed|cannot load certificate key|$victim exited on signal 9"
quit
kill "$proxy"
