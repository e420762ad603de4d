# Helpers of the nginx scripts. `. "$AKV_CLIENTS/nginx/nginx.sh"`, under `sh -eu`, in an empty folder.
# nginx wipes the environment of its workers.

. "$AKV_CLIENTS/tls.sh"

worker_count=2
examples=$AKV_ROOT/examples/nginx

# configure DAEMON [LINE…]: nginx.conf with $worker_count workers, a server for each certificate there is,
# and no session resumption: each handshake needs a signature. LINEs go to the top. There is no
# `env` line: workers have an empty environment.
configure() {
    daemon=$1
    shift
    {
        cat <<END
daemon $daemon;
${user:+user $user;}
worker_processes $worker_count;
error_log $PWD/error.log notice;
pid $PWD/nginx.pid;
ssl_engine pkcs11;
$(printf '%s\n' "$@")
events { worker_connections 512; }
http {
    access_log off;
    client_body_temp_path $PWD/temp/body;
    proxy_temp_path $PWD/temp/proxy;
    fastcgi_temp_path $PWD/temp/fastcgi;
    uwsgi_temp_path $PWD/temp/uwsgi;
    scgi_temp_path $PWD/temp/scgi;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache off;
    ssl_session_tickets off;
    keepalive_timeout 0;
END
        each server
        echo "}"
    } >nginx.template
    mkdir -p temp
    draw_port
}

# draw_port: nginx cannot take a free port itself, so one is drawn below those that the system
# gives out.
draw_port() {
    port=$(shuf -n 1 -i 20000-32000)
    sed "s|@PORT@|$port|" nginx.template >nginx.conf
}

# server TOKEN KEY: its section, if it has a certificate.
server() {
    [ -f "$1-$2.pem" ] || return 0
    cat <<END
    server {
        listen 127.0.0.1:@PORT@ ssl;
        server_name $1-$2;
        ssl_certificate $PWD/$1-$2.pem;
        ssl_certificate_key "engine:pkcs11:pkcs11:token=$1;object=$2;type=private";
        location / { return 200 "\$server_name \$ssl_protocol \$pid\n"; }
    }
END
}

# nginx_command ARGUMENT… (By its path: an upgrade on the fly executes what it was started as.)
nginx_command() {
    with_engine "$(command -v nginx)" -p "$PWD" -c "$PWD/nginx.conf" -e "$PWD/error.log" "$@"
}

# start: nginx, on another port if somebody has taken this one.
start() {
    trap 'end_nginx' EXIT
    tries=0
    while :; do
        : >error.log
        if [ "$daemon" = on ]; then
            nginx_command 2>start.log || true
        else
            nginx_command 2>start.log &
        fi
        started=0
        while [ "$started" -lt 200 ]; do
            if master=$(cat nginx.pid 2>/dev/null) && [ "$(workers | wc -l)" -eq "$worker_count" ]; then
                say "nginx (daemon $daemon) on port $port, master $master," \
                    "workers $(workers | xargs)"
                return
            fi
            if grep -q "still could not bind" error.log; then break; fi
            if grep -q "\[emerg\]" error.log; then fail "nginx: $(cat error.log start.log)"; fi
            sleep 0.1
            started=$((started + 1))
        done
        tries=$((tries + 1))
        [ "$tries" -lt 5 ] || fail "nginx does not start: $(cat error.log start.log)"
        draw_port
    done
}

# workers: process ids of those that accept connections.
workers() {
    ps --ppid "$master" -o pid=,args= | awk '/nginx: worker process$/ { print $1 }'
}

# other_workers PID…: all workers accept, none of them with these ids.
other_workers() {
    [ "$(workers | wc -l)" -eq "$worker_count" ] || return 1
    for other in $(workers); do
        case " $* " in *" $other "*) return 1 ;; esac
    done
}

# reload: HUP, as systemd does it; returns when new workers accept.
reload() {
    reload_before=$(workers | xargs)
    kill -HUP "$master"
    # shellcheck disable=SC2086 # a list of numbers
    wait_for 30 other_workers $reload_before
}

# quit: gracefully; nothing of nginx may be left.
quit() {
    quit_family=$(family | xargs)
    kill -QUIT "$master"
    # shellcheck disable=SC2086
    wait_for 30 gone $quit_family
    trap - EXIT
    healthy
}

# healthy: nothing in nginx's log that it calls a fault, and no worker that fell; lines that match
# the pattern in $expected are what the script has caused itself.
expected='^$'
healthy() {
    if grep -E "\[(emerg|alert|crit|error)\]|exited on signal|panicked" error.log |
        grep -Ev "$expected"; then
        fail "see error.log above"
    fi
}

# end_nginx: whatever happened before, nothing stays.
end_nginx() {
    trap - EXIT
    rm -f under-load
    [ -f nginx.pid ] || return 0
    end_family=$(family | xargs)
    # shellcheck disable=SC2086
    kill -KILL $end_family 2>/dev/null || true
}
