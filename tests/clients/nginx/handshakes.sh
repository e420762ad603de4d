# Every key of both services, in TLS 1.2 and 1.3, by workers that run as www-data and can read
# neither configuration nor environment; many at once; a worker that dies. Each handshake is one
# sign request, and nothing else is asked.

. "$AKV_CLIENTS/nginx/nginx.sh"

prepare
each certify
printf '[log]\nlevel = "debug"\nsink = "file:module.log"\n' >>secret/config.toml
configure on

say "nginx -t"
nginx_command -t 2>test.log || fail "nginx -t: $(cat test.log)"
grep -q "test is successful" test.log

start
as_www_data
for token in $tokens; do
    [ "$(counter "$(service_of "$token")" keys/sign)" -eq 4 ] ||
        fail "something but the four certificates was signed on $token"
done

one_signature() {
    expect_counted "$(service_of "$1")" keys/sign 1 handshake "$@"
}

# both_versions TOKEN KEY
both_versions() {
    one_signature "$1" "$2" -tls1_3
    case $2 in
    rsa*)
        for padding in rsa_pkcs1_sha256 rsa_pkcs1_sha384 rsa_pss_rsae_sha256 rsa_pss_rsae_sha512; do
            one_signature "$1" "$2" -tls1_2 -sigalgs "$padding"
        done
        ;;
    *) one_signature "$1" "$2" -tls1_2 ;;
    esac
}
say "one signature per handshake: TLS 1.3, and TLS 1.2 with PKCS#1 and PSS"
each both_versions

# met TOKEN KEY: each worker has found the key; the other one is stopped meanwhile.
met() {
    for resting in $(workers); do
        kill -STOP "$resting"
        handshake "$1" "$2"
        kill -CONT "$resting"
    done
}
each met

say "60 handshakes of each key, 16 at a time: signatures, and nothing else"
# flood TOKEN KEY
flood() {
    service=$(service_of "$1")
    requests=$(counter "$service" requests)
    expect_counted "$service" keys/sign 60 storm "$1" "$2" 60
    requests=$(($(counter "$service" requests) - requests))
    [ "$requests" -eq 60 ] || fail "$requests requests, not 60: $1 $2"
    say "  $1 $2: $(handshake_times "$1" "$2")"
}
each flood
single_threaded

say "a worker is killed and replaced, and the new one signs"
victim=$(workers | head -n 1)
survivor=$(workers | tail -n 1)
kill -KILL "$victim"
replaced() { [ "$(workers | wc -l)" -eq 2 ] && ! workers | grep -qx "$victim"; }
wait_for 30 replaced
new=$(workers | grep -vx "$survivor")
kill -STOP "$survivor"
expect_counted vault:kv1 keys/sign 1 handshake kv1 rsa2048
expect_counted managed-hsm:hsm1 keys/sign 1 handshake hsm1 p384
kill -CONT "$survivor"
grep -q " $new\$" handshake.log || fail "another worker answered: $(cat handshake.log)"
single_threaded
expected="$victim exited on signal 9"

say "workers write to the log file that root opened"
for worker in $(workers); do
    grep -q " $worker DEBUG .* sign with key " secret/module.log || fail "none by worker $worker"
done

say "quit"
quit
