# examples/nginx as it is, but for paths, port and names; clients that come back resume their
# session without a signature.

. "$AKV_CLIENTS/nginx/nginx.sh"

prepare
sed -i 's|^label = "kv1"|label = "Web servers"\nkeys = ["rsa2048"]|' secret/config.toml
certify "Web%20servers" rsa2048 www.pem
mkdir log
sed -e "s|^user .*|${user:+user $user;}|" -e 's|^worker_processes .*|worker_processes 2;|' \
    -e "s|/var/log/nginx/|$PWD/log/|" -e "s|/run/nginx.pid|$PWD/nginx.pid|" \
    -e 's|listen 443 |listen 127.0.0.1:@PORT@ |' -e "s|/etc/nginx/|$PWD/|" \
    -e 's|object=www;|object=rsa2048;|' "$examples/nginx.conf" >nginx.template
sed -i "s|^http {|&\n    access_log off;\n    client_body_temp_path $PWD/body;|" nginx.template
daemon=on
draw_port

say "starting asks for one key, and workers for nothing before their first handshake"
gets=$(counter vault:kv1 keys/get)
requests=$(counter vault:kv1 requests)
start
[ "$(counter vault:kv1 keys/get)" -eq $((gets + 1)) ] || fail "the key was not asked for once"
[ "$(counter vault:kv1 requests)" -eq $((requests + 1)) ] || fail "more than that was asked"
[ "$(counter managed-hsm:hsm1 requests)" -eq 0 ] || fail "a token that is not used was asked"
ln -sf log/error.log error.log

say "one signature for six connections of one client"
reconnect() {
    timeout 30 openssl s_client -connect "127.0.0.1:$port" -tls1_2 -reconnect -CAfile www.pem \
        -verify_return_error </dev/null >reconnect.log 2>&1 || fail "$(cat reconnect.log)"
}
expect_counted vault:kv1 keys/sign 1 reconnect
[ "$(grep -c '^Reused, TLSv1.2' reconnect.log)" -eq 5 ] || fail "$(cat reconnect.log)"
[ "$(counter vault:kv1 keys/list)" -eq 0 ] || fail "keys were listed, though one is named"

say "quit"
quit
