# Helpers of the scripts of TLS servers: nginx and Apache. `. "$AKV_CLIENTS/tls.sh"`, under `sh -eu`,
# in an empty folder.
#
# Everything the server reads and writes is in that folder. The module's configuration is in
# `secret/`, which only root may enter: workers that run as www-data cannot read it, so what they
# know they have from the process that forked them.

. "$AKV_CLIENTS/lib.sh"

PATH=$PATH:/usr/sbin:/sbin
tokens="kv1 hsm1"
keys="rsa2048 rsa4096 p256 p384"
client_id=$AZURE_CLIENT_ID client_secret=$AZURE_CLIENT_SECRET tenant=$AZURE_TENANT_ID

# Module and OpenSSL configuration as an operator would have them, from what the emulator's `exec`
# has set. Arguments are lines for each [[token]].
prepare() {
    mkdir -m 700 secret
    cp "$AKV_PKCS11_CA_FILE" secret/ca.pem
    (
        umask 077
        printf %s "$AZURE_CLIENT_SECRET" >secret/client-secret
        sed -e 's|"env:AZURE_CLIENT_SECRET"|"file:client-secret"|' \
            -e 's|^ca_file = .*|ca_file = "ca.pem"|' "$AKV_PKCS11_CONFIG" >secret/config.toml
        for line in "$@"; do
            sed -i "s|^\[\[token\]\]\$|&\n$line|" secret/config.toml
        done
    )
    AKV_PKCS11_CONFIG=$PWD/secret/config.toml
    unset AZURE_CLIENT_SECRET AZURE_CLIENT_ID AZURE_TENANT_ID AKV_PKCS11_ENDPOINT
    sed "s|^MODULE_PATH = .*|MODULE_PATH = $AKV_MODULE|" "$AKV_ROOT/examples/nginx/openssl.cnf" >openssl.cnf
    if [ "$(id -u)" -eq 0 ]; then
        user=www-data
        for file in config.toml client-secret ca.pem; do
            refused setpriv --reuid "$user" --clear-groups cat "secret/$file" 2>/dev/null
        done
    else
        user=
        say "not root: the server runs as $(id -un) throughout; that its workers may not read the" \
            "configuration is not tested"
    fi
}

# with_engine COMMAND…: OpenSSL's configuration and the module's are set for this command only.
with_engine() {
    env OPENSSL_CONF="$PWD/openssl.cnf" AKV_PKCS11_CONFIG="$AKV_PKCS11_CONFIG" "$@"
}

# certify TOKEN KEY [FILE]: a certificate that the key signs for itself, for the host TOKEN-KEY.
# Clients trust it from now on.
certify() {
    cat >req.cnf <<END
[req]
distinguished_name = dn
x509_extensions = leaf
[dn]
[leaf]
basicConstraints = ${constraints:-CA:FALSE}
subjectAltName = DNS:$1-$2
END
    with_engine openssl req -x509 -config req.cnf -engine pkcs11 -keyform engine -sha256 \
        -key "pkcs11:token=$1;object=$2;type=private" -subj "/CN=$1-$2" -days 2 \
        -out "${3:-$1-$2.pem}" 2>>openssl.log || fail "no certificate: $(cat openssl.log)"
    cat "${3:-$1-$2.pem}" >>"$1-$2.trusted"
}

# each DO…: DO… TOKEN KEY for every token and key.
each() {
    for each_token in $tokens; do
        for each_key in $keys; do
            "$@" "$each_token" "$each_key"
        done
    done
}

# family: process ids of master and all its children.
family() {
    echo "$master"
    ps --ppid "$master" -o pid= | awk '{ print $1 }'
}

# wait_for SECONDS COMMAND…: until it succeeds.
wait_for() {
    wait_rounds=$(($1 * 10))
    shift
    while ! "$@"; do
        wait_rounds=$((wait_rounds - 1))
        [ "$wait_rounds" -gt 0 ] || fail "waited in vain for: $*; $(tail -n 20 error.log)"
        sleep 0.1
    done
}

# gone PID…: none of them runs (a zombie does not).
gone() {
    for gone_pid in "$@"; do
        gone_state=$(ps -o state= -p "$gone_pid" || true)
        case $gone_state in '' | Z*) ;; *) return 1 ;; esac
    done
}

# single_threaded: the module has started no thread, neither in the master nor in a worker.
single_threaded() {
    for single in $(family); do
        set -- "/proc/$single/task"/*
        [ $# -eq 1 ] || fail "process $single has $# threads"
    done
}

# as_www_data: the workers have given up root for good.
as_www_data() {
    [ -n "$user" ] || return 0
    for worker in $(workers); do
        id=$(awk '/^Uid:/ { print $2 $3 $4 }' "/proc/$worker/status")
        number=$(id -u "$user")
        [ "$id" = "$number$number$number" ] || fail "worker $worker runs as user $id"
    done
}

# descriptors PID
descriptors() {
    find "/proc/$1/fd" -mindepth 1 | wc -l
}

# handshake TOKEN KEY OPTION…: a full handshake by openssl s_client, the certificate verified.
handshake() {
    handshake_host=$1-$2
    shift 2
    printf 'GET / HTTP/1.0\r\nHost: %s\r\n\r\n' "$handshake_host" |
        timeout 30 openssl s_client -connect "127.0.0.1:$port" -servername "$handshake_host" \
            -verify_hostname "$handshake_host" -CAfile "$handshake_host.pem" \
            -verify_return_error -ign_eof "$@" >handshake.log 2>&1 ||
        fail "handshake with $handshake_host $*: $(cat handshake.log)"
    grep -q "^Verify return code: 0 (ok)\|Verification: OK" handshake.log ||
        fail "not verified: $(cat handshake.log)"
    grep -q "^$handshake_host TLSv1" handshake.log || fail "no answer: $(cat handshake.log)"
}

# storm TOKEN KEY COUNT: so many requests, 16 at a time, each with a full handshake of its own;
# every one must be answered.
storm() {
    storm_host=$1-$2 storm_count=$3
    curl --silent --show-error --fail --http1.1 --no-sessionid --max-time 120 \
        --parallel --parallel-max 16 --cacert "$storm_host.trusted" \
        --resolve "$storm_host:$port:127.0.0.1" \
        --write-out '%{http_code} %{num_connects} %{time_appconnect}\n' --output /dev/null \
        "https://$storm_host:$port/[1-$storm_count]" >"$storm_host.storm" 2>"$storm_host.errors" ||
        fail "a request to $storm_host was lost: $(cat "$storm_host.errors"); $(cat error.log)"
    storm_answered=$(grep -c '^200 1 ' "$storm_host.storm" || true)
    [ "$storm_answered" -eq "$storm_count" ] ||
        fail "$storm_answered of $storm_count answered by $storm_host: $(cat "$storm_host.errors")"
}

# load_begin: storms of 50 on each key, without a pause, beside what follows.
load_begin() {
    : >under-load
    loads=
    each load_on
}

# load_on TOKEN KEY: in the background; a background shell that ends must not end the server.
load_on() {
    (
        trap - EXIT
        while [ -f under-load ]; do
            storm "$@" 50
            echo 50 >>"$1-$2.count"
        done
    ) &
    loads="$loads $!"
}

# load_end: no request was lost; $total were answered.
load_end() {
    rm under-load
    for load in $loads; do
        wait "$load" || fail "load $load lost a request"
    done
    total=$(cat ./*.count | awk '{ sum += $1 } END { print sum }')
}

# handshake_times TOKEN KEY: of the last storm, for the reader.
handshake_times() {
    sort -k 3 -n "$1-$2.storm" |
        awk '{ t[NR] = $3 * 1000 } END { printf "median %.1f ms, slowest %.1f ms", t[int((NR + 1) / 2)], t[NR] }'
}

# bearer SCOPE: an access token, as any client of the service gets it.
bearer() {
    curl --silent --show-error --fail --cacert secret/ca.pem \
        --data-urlencode "client_id=$client_id" --data-urlencode "client_secret=$client_secret" \
        --data-urlencode "grant_type=client_credentials" --data-urlencode "scope=$1" \
        "$AZURE_AUTHORITY_HOST/$tenant/oauth2/v2.0/token" | jq -r .access_token
}

# configured TOKEN NAME: the value of a line of the token in the module's configuration.
configured() {
    awk -v token="\"$1\"" -v name="$2" '
        $1 == "label" { here = ($3 == token) }
        here && $1 == name { gsub(/"/, "", $3); print $3 }' secret/config.toml
}

# rotate TOKEN KEY: a new version of the key, at the service.
rotate() {
    case $2 in
    rsa*) parameters='{"kty":"RSA-HSM","key_size":2048,"key_ops":["sign","verify"]}' ;;
    *) parameters='{"kty":"EC-HSM","crv":"P-256","key_ops":["sign","verify"]}' ;;
    esac
    curl --silent --show-error --fail --cacert secret/ca.pem --output "$1-$2.rotated" \
        --header "Authorization: Bearer $(bearer "$(configured "$1" scope)")" \
        --header "Content-Type: application/json" --data "$parameters" \
        "$(configured "$1" endpoint)/keys/$2/create?api-version=7.4" ||
        fail "key $2 of $1 is not rotated"
}
