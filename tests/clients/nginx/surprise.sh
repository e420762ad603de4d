# A key is rotated at the service, and the module's configuration does not name the certificate: the
# name means the new version from then on. Whoever uses the old one goes on with it, also a worker
# that looks for the key only now; a reload is refused by nginx, and changes nothing.

. "$AKV_CLIENTS/nginx/nginx.sh"

keys="rsa2048 p256"
prepare 'cache_ttl = "1s"'
each certify
configure on
start
signs() { storm "$1" "$2" 20; }

say "rotated before any worker has used the key"
each rotate
sleep 1.2
each signs

say "reload"
kill -HUP "$master"
wait_for 20 grep -q "\[emerg\].*key values mismatch" error.log
each signs

say "a worker is replaced"
victim=$(workers | head -n 1)
survivor=$(workers | tail -n 1)
kill -KILL "$victim"
replaced() { [ "$(workers | wc -l)" -eq 2 ] && ! workers | grep -qx "$victim"; }
wait_for 30 replaced
kill -STOP "$survivor"
each handshake
kill -CONT "$survivor"

say "quit"
expected="key values mismatch|$victim exited on signal 9"
quit
