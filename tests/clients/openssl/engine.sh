# What the scripts beside this one share. $1 is the token's label.
. "$AKV_CLIENTS/lib.sh"

TOKEN=$1
SERVICE=$(service_of "$TOKEN")
RSA_KEYS='rsa2048 rsa4096'
EC_KEYS='p256 p384'

openssl engine pkcs11 >engine.log 2>&1 ||
    fail "openssl has no pkcs11 engine: apt-get install libengine-pkcs11-openssl, or make deps"

# The shipped configuration with the module under test.
sed "s|^MODULE_PATH = .*|MODULE_PATH = $AKV_MODULE|" "$AKV_ROOT/examples/openssl/openssl.cnf" \
    >openssl.cnf

# The openssl command with the engine at hand; verification uses the plain one.
openssl_engine() { OPENSSL_CONF=$PWD/openssl.cnf openssl "$@"; }

# uri KEY
uri() { echo "pkcs11:token=$TOKEN;object=$1;type=private"; }

# export_key KEY: its public key, as the engine sees it, becomes KEY.pem.
export_key() { openssl_engine pkey -engine pkcs11 -inform engine -in "$(uri "$1")" -pubout -out "$1.pem"; }

# signs COMMAND…: with exactly one signature made by the service.
signs() { expect_counted "$SERVICE" keys/sign 1 "$@"; }
