# Helpers of the Apache script. `. "$AKV_CLIENTS/apache/apache.sh"`, under `sh -eu`, in an empty folder.

. "$AKV_CLIENTS/tls.sh"

# configure MPM [LINE…]: httpd.conf, with a virtual host for each certificate there is and no session
# resumption: each handshake needs a signature.
configure() {
    mpm=$1
    shift
    mkdir -p www
    {
        cat <<END
ServerRoot $PWD
ServerName localhost
Listen 127.0.0.1:@PORT@
PidFile $PWD/apache.pid
ErrorLog $PWD/error.log
LogLevel notice
DefaultRuntimeDir $PWD
Mutex pthread default
END
        for module in "mpm_$mpm" authz_core alias ssl; do
            echo "LoadModule ${module}_module /usr/lib/apache2/modules/mod_$module.so"
        done
        [ -z "$user" ] || printf 'User %s\nGroup %s\n' "$user" "$user"
        printf '%s\n' "$@"
        cat <<END
SSLCryptoDevice pkcs11
SSLSessionCache none
SSLSessionTickets off
KeepAlive Off
<Directory $PWD/www>
    Require all granted
</Directory>
END
        each server
    } >apache.template
    draw_port
}

# draw_port: one below those that the system gives out.
draw_port() {
    port=$(shuf -n 1 -i 20000-32000)
    sed "s|@PORT@|$port|" apache.template >apache.conf
}

# server TOKEN KEY: its section, if it has a certificate. The helpers want the host's name in the
# answer, and the protocol's.
server() {
    [ -f "$1-$2.pem" ] || return 0
    echo "$1-$2 TLSv1" >"www/$1-$2"
    cat <<END
<VirtualHost 127.0.0.1:@PORT@>
    ServerName $1-$2
    SSLEngine on
    SSLCertificateFile $PWD/$1-$2.pem
    SSLCertificateKeyFile "pkcs11:token=$1;object=$2;type=private"
    AliasMatch "^/.*" "$PWD/www/$1-$2"
</VirtualHost>
END
}

# apache_command ARGUMENT…
apache_command() {
    with_engine apache2 -f "$PWD/apache.conf" "$@"
}

# workers: process ids of the master's children.
workers() {
    ps --ppid "$master" -o pid=,stat= | awk '$2 !~ /^Z/ { print $1 }'
}

# generations COUNT: so often has the server begun to serve.
generations() { [ "$(grep -c 'resuming normal operations' error.log)" -ge "$1" ]; }

# start: on another port if somebody has taken this one.
start() {
    trap end_apache EXIT
    tries=0
    generation=1
    while :; do
        : >error.log
        if apache_command -k start 2>start.log; then break; fi
        tries=$((tries + 1))
        grep -q "could not bind" start.log error.log && [ "$tries" -lt 5 ] ||
            fail "apache does not start: $(cat error.log start.log)"
        draw_port
    done
    wait_for 30 generations 1
    master=$(cat apache.pid)
    say "apache ($mpm) on port $port, master $master, workers $(workers | xargs)"
}

# graceful: a restart that lets requests end.
graceful() {
    generation=$((generation + 1))
    kill -USR1 "$master"
    wait_for 30 generations "$generation"
}

# quit: gracefully; nothing of the server may be left.
quit() {
    quit_family=$(family | xargs)
    kill -WINCH "$master"
    # shellcheck disable=SC2086 # a list of numbers
    wait_for 30 gone $quit_family
    trap - EXIT
    healthy
}

# healthy: no fault in the server's log, and no worker that fell. That it has as many threads as it may
# have (AH10159) is the load's doing.
healthy() {
    if grep -v AH10159 error.log | grep -E "\[[a-z_]*:(emerg|alert|crit|error)\]|exit signal|panicked"; then
        fail "see error.log above"
    fi
}

# end_apache: whatever happened before, nothing stays.
end_apache() {
    trap - EXIT
    rm -f under-load
    [ -f apache.pid ] || return 0
    # shellcheck disable=SC2046
    kill -KILL $(cat apache.pid) $(ps --ppid "$(cat apache.pid)" -o pid=) 2>/dev/null || true
}
