# Four programs, eight keys: run by `make quickstart` in an empty folder, under `akv-emulator exec`
# with a vault, contoso, and a Managed HSM, contoso-hsm. Both have the keys web, api, release and
# authority. AKV_MODULE is the module's path, AKV_ROOT the source's.
set -eu

PATH=$PATH:/usr/sbin:/sbin
examples=$AKV_ROOT/examples

# show NAME FUNCTION: runs it, and prints its last words and what the services did for it.
show() {
    before=$(operations)
    # Not under `if`: there the shell would go on after the first error.
    set +e
    (
        set -e
        "$2"
    ) >"$2.log" 2>&1
    status=$?
    set -e
    if [ $status -ne 0 ]; then
        printf '✗ %s\n' "$1"
        cat "$2.log"
        exit 1
    fi
    printf '✓ %-14s  %s: %s operations\n' "$1" "$(tail -n 1 "$2.log")" $(($(operations) - before))
}

# How many private-key operations the vault and the HSM have carried out.
operations() {
    curl --silent --fail "$AKV_EMULATOR_CONTROL/counters" |
        jq '[.[] | .["keys/sign"], .["keys/decrypt"], .["keys/create"] | numbers] | add // 0'
}

# uri TOKEN KEY
uri() { echo "pkcs11:token=$1;object=$2;type=private"; }

# p11 TOKEN OPTIONS…
p11() {
    token=$1
    shift
    pkcs11-tool --module "$AKV_MODULE" --token-label "$token" "$@"
}

# Makes a key in the vault, signs with it, and has openssl check that.
with_pkcs11_tool() {
    pkcs11-tool --module "$AKV_MODULE" -L
    keys=$(($(p11 contoso -O --type privkey | grep -c '^Private') +
        $(p11 contoso-hsm -O --type privkey | grep -c '^Private')))
    p11 contoso --keypairgen --key-type rsa:2048 --label made-here --id 2026
    printf 'Hello, vault.' >data
    p11 contoso --sign --id 2026 -m SHA256-RSA-PKCS --input-file data --output-file signature
    p11 contoso --read-object --type pubkey --id 2026 --output-file made-here.der
    openssl dgst -sha256 -verify made-here.der -signature signature data
    openssl pkeyutl -encrypt -pubin -keyform DER -inkey made-here.der -pkeyopt rsa_padding_mode:oaep \
        -in data -out encrypted
    p11 contoso --decrypt --id 2026 -m RSA-PKCS-OAEP --hash-algorithm SHA-1 --mgf MGF1-SHA1 \
        --input-file encrypted --output-file decrypted
    cmp data decrypted
    echo "$keys key pairs listed, another made in the vault, signed and decrypted with it"
}

# An authority in the HSM certifies a key of the vault and one of the HSM.
with_openssl() {
    export OPENSSL_CONF="$PWD/openssl.cnf"
    openssl req -new -x509 -engine pkcs11 -keyform engine -key "$(uri contoso-hsm authority)" \
        -sha384 -subj '/CN=Contoso Authority' -days 30 -out ca.pem
    echo 'subjectAltName = DNS:localhost' >leaf.cnf
    for leaf in 'contoso web' 'contoso-hsm api'; do
        # shellcheck disable=SC2086 # token and key
        set -- $leaf
        openssl req -new -engine pkcs11 -keyform engine -key "$(uri "$@")" -subj /CN=localhost \
            -out "$2.csr"
        openssl x509 -req -engine pkcs11 -CAkeyform engine -CAkey "$(uri contoso-hsm authority)" \
            -CA ca.pem -CAcreateserial -in "$2.csr" -extfile leaf.cnf -days 30 -sha384 -out "$2.pem"
        openssl verify -CAfile ca.pem "$2.pem"
    done
    openssl dgst -engine pkcs11 -keyform engine -sign "$(uri contoso release)" -sha512 \
        -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest -out signature data
    echo "a CA with a P-384 key in the HSM, 2 certificates by it, an RSA-4096 PSS signature"
}

# TLS with the vault's RSA key, then with the HSM's EC key.
with_nginx() {
    for server in 'contoso web' 'contoso-hsm api'; do
        # shellcheck disable=SC2086 # token and key
        set -- $server
        start_nginx "$@"
        for version in 1.2 1.3; do
            curl --silent --show-error --fail --cacert ca.pem --tlsv$version --tls-max $version \
                "https://localhost:$port/"
        done
        stop_nginx
    done
    echo 'TLS 1.2 and 1.3 with an RSA key in the vault and an EC key in the HSM'
}

# start_nginx TOKEN KEY: the shipped configuration, on a free port, with all files here.
start_nginx() {
    trap stop_nginx EXIT
    trap 'exit 130' INT TERM
    for _ in 1 2 3 4 5 6 7 8; do
        port=$(shuf -n 1 -i 20000-32000)
        sed -e "s|/var/log/nginx|$PWD|; s|/run/nginx.pid|$PWD/nginx.pid|" \
            -e "s|listen 443|listen 127.0.0.1:$port|" -e "s|www.example.com|localhost|" \
            -e "s|/etc/nginx/www.pem|$PWD/$2.pem|" -e "s|token=[^;]*;object=www|token=$1;object=$2|" \
            -e "s|^http {|&\naccess_log off; client_body_temp_path $PWD/body; proxy_temp_path\
 $PWD/proxy; fastcgi_temp_path $PWD/fastcgi; uwsgi_temp_path $PWD/uwsgi; scgi_temp_path $PWD/scgi;|" \
            "$examples/nginx/nginx.conf" >nginx.conf
        # Only root may become somebody else.
        [ "$(id -u)" -eq 0 ] || sed -i '/^user /d' nginx.conf
        if OPENSSL_CONF=$PWD/openssl.cnf nginx -p "$PWD" -c "$PWD/nginx.conf"; then return; fi
    done
    return 1
}

stop_nginx() {
    if [ -s nginx.pid ]; then kill -s QUIT "$(cat nginx.pid)"; fi
    for _ in $(seq 100); do
        if [ ! -e nginx.pid ]; then break; fi
        sleep 0.05
    done
}

# The key store of Java, with the certificates that the module's configuration names.
with_java() {
    index=0
    for alias in web api; do
        sed -e "s|^library = .*|library = $AKV_MODULE|" \
            -e "s|^slotListIndex = .*|slotListIndex = $index|" "$examples/java/p11.cfg" >p11.cfg
        java "$examples/java/Sign.java" p11.cfg $alias data signature
        index=$((index + 1))
    done
    echo 'SHA256withRSA with a key in the vault, SHA256withECDSA with one in the HSM'
}

cat <<EOF
A Key Vault and a Managed HSM on this machine: real TLS, real tokens, real cryptography.
Four programs use keys in them; how many operations the two services did is at the end of each line.
EOF
echo

sed "s|^MODULE_PATH = .*|MODULE_PATH = $AKV_MODULE|" "$examples/openssl/openssl.cnf" >openssl.cnf
show pkcs11-tool with_pkcs11_tool
show 'OpenSSL engine' with_openssl
show nginx with_nginx

# Java sees only keys that have a certificate.
(
    umask 077
    sed 's/^\[\[token\]\]$/&\ncertificates = ["web.pem", "api.pem", "ca.pem"]/' "$AKV_PKCS11_CONFIG" \
        >config.toml
)
export AKV_PKCS11_CONFIG="$PWD/config.toml"
show Java with_java

cat <<EOF

No private key was in any of these programs. Next, the same tokens for a command of yours:

    target/debug/akv-emulator exec --vault contoso --hsm contoso-hsm --seed demo -- \\
        pkcs11-tool --module target/debug/libakv_pkcs11.so -L -O

or with a vault of yours, after 'az login':

    export AKV_PKCS11_ENDPOINT=https://NAME.vault.azure.net AKV_PKCS11_CREDENTIAL=azure-cli
    pkcs11-tool --module target/debug/libakv_pkcs11.so -O
EOF
