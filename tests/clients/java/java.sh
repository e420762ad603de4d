# What the scripts beside this one share.
. "$AKV_CLIENTS/lib.sh"

KEYS='rsa2048 rsa4096 p256 p384'

# p11_cfg FILE EXAMPLE TOKEN: the shipped configuration, for this module and this token. The
# provider is then called SunPKCS11-TOKEN.
p11_cfg() {
    case $3 in kv1) index=0 ;; hsm1) index=1 ;; esac
    sed -e "s|^library = .*|library = $AKV_MODULE|" -e "s|^name = .*|name = $3|" \
        -e "s|^slotListIndex = .*|slotListIndex = $index|" "$AKV_ROOT/examples/java/$2" >"$1"
}

# export_public TOKEN KEY FILE: as openssl reads it (pkcs11-tool 0.23 cannot export P-384).
export_public() {
    PKCS11_MODULE_PATH=$AKV_MODULE openssl pkey -engine pkcs11 -inform engine -pubin -pubout \
        -in "pkcs11:token=$1;object=$2;type=public" -out "$3" 2>openssl.log ||
        fail "is libengine-pkcs11-openssl installed? $(cat openssl.log)"
}

# Gives each key of the Managed HSM a certificate of a CA made here, the chain in KEY.pem.
certify_hsm_keys() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key \
        -out ca.pem -days 30 -subj '/CN=Test CA' 2>openssl.log || fail "$(cat openssl.log)"
    printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:false\n' >leaf.ext
    for key in $KEYS; do
        export_public hsm1 "$key" "$key.pub"
        openssl x509 -new -force_pubkey "$key.pub" -CA ca.pem -CAkey ca.key -days 30 \
            -subj /CN=localhost -extfile leaf.ext -out "$key.crt"
        cat "$key.crt" ca.pem >"$key.pem"
    done
}

# Writes config.toml: the emulator's, with what Java needs of each token, and uses it.
configure() {
    mkdir -p kv1.d hsm1.d
    awk '
        { print }
        /^label = / {
            label = $3
            gsub(/"/, "", label)
            # Whole runs count requests: a listing is asked for once.
            print "cache_ttl = \"10m\""
            print "certificate_dir = \"" label ".d\""
        }
        /^label = "hsm1"/ {
            # The emulator has it; SHA1withRSA needs it.
            print "rsnull = true"
            if (certified) print "certificates = " certified
        }
    ' certified="${1-}" "$AKV_PKCS11_CONFIG" >config.toml
    chmod 600 config.toml
    export AKV_PKCS11_CONFIG="$PWD/config.toml"
}

configure_with_certificates() {
    certify_hsm_keys
    configure '["rsa2048.pem", "rsa4096.pem", "p256.pem", "p384.pem"]'
}
