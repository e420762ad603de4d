# A key is rotated at the service: the version that nginx's certificate belongs to goes on signing,
# in running workers, after reloads, in replaced workers and after a restart, because the module's
# configuration names the certificate. Then the certificate of the new version takes its place.

. "$AKV_CLIENTS/nginx/nginx.sh"

tokens="kv1 hsm1"
keys="rsa2048 p256"
# A certificate for each key, which the configuration names; then short-lived knowledge, so that
# the module looks at the service again and again while this runs.
prepare 'cache_ttl = "1s"'
# certify_as TOKEN KEY: one kind as a CA makes it, one as `openssl req -x509` does by default.
certify_as() {
    case $1 in
    kv1) constraints=CA:FALSE ;;
    *) constraints=CA:TRUE ;;
    esac
    certify "$@"
}
each certify_as
each_certificate() { printf '"../%s-%s.pem", ' "$1" "$2"; }
certificates=$(each_certificate kv1 rsa2048; each_certificate kv1 p256
    each_certificate hsm1 rsa2048; each_certificate hsm1 p256)
sed -i "s|^\[\[token\]\]\$|&\ncertificates = [${certificates%, }]|" secret/config.toml
configure on 'env OPENSSL_CONF;' 'env AKV_PKCS11_CONFIG;'
start
each handshake
# signs TOKEN KEY: with both workers.
signs() { storm "$1" "$2" 30; }
each signs

say "rotated at the service: running workers go on"
each rotate
sleep 1.2
each signs

say "reloaded, twice"
reload
each signs
reload
each signs

say "a replaced worker goes on"
victim=$(workers | head -n 1)
expected="$victim exited on signal 9"
kill -KILL "$victim"
replaced() { [ "$(workers | wc -l)" -eq 2 ] && ! workers | grep -qx "$victim"; }
wait_for 30 replaced
each signs

say "restarted"
quit
expected='^$'
start
each signs

say "certificates of the new versions"
sed "/^certificates = /d" secret/config.toml >secret/current.toml
chmod 600 secret/current.toml
# recertify TOKEN KEY: without a configured certificate the key is its current version.
recertify() {
    (
        AKV_PKCS11_CONFIG=$PWD/secret/current.toml
        certify "$1" "$2" "$1-$2.next"
    )
    for file in "$1-$2.pem" "$1-$2.next"; do
        openssl x509 -in "$file" -noout -pubkey >"$file.public"
    done
    refused cmp --silent "$1-$2.pem.public" "$1-$2.next.public"
}
each recertify

say "they take over by an upgrade on the fly, under load"
load_begin
replace() { mv "$1-$2.next" "$1-$2.pem"; }
each replace
retiring=$(family | xargs)
kill -USR2 "$master"
upgraded() {
    [ -f nginx.pid.oldbin ] && [ -f nginx.pid ] && master=$(cat nginx.pid) &&
        [ "$(workers | wc -l)" -eq 2 ]
}
wait_for 30 upgraded
kill -QUIT "$(cat nginx.pid.oldbin)"
# shellcheck disable=SC2086 # a list of numbers
wait_for 30 gone $retiring
load_end
say "$total requests answered meanwhile"
each signs
# Verified against the new certificate only.
each handshake
single_threaded

say "quit"
quit
