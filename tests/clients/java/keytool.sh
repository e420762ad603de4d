# keytool with the shipped configurations: what is there, and the whole life of a key made here.
# $1 is the token, the rest the options of -genkeypair.
. "$AKV_CLIENTS/java/java.sh"

TOKEN=$1
SERVICE=$(service_of "$TOKEN")
shift

configure_with_certificates
p11_cfg p11.cfg p11.cfg "$TOKEN"
p11_cfg generate.cfg p11-generate.cfg "$TOKEN"

# Each run is a Java of its own: nothing is known but what service and certificate_dir keep.
# No PIN is asked for; keytool insists on one.
tool() {
    cfg=$1
    shift
    keytool -keystore NONE -storetype PKCS11 -storepass none -addprovider SunPKCS11 \
        -providerArg "$cfg" -providerName "SunPKCS11-$TOKEN" "$@" >keytool.log 2>&1 ||
        { cat keytool.log; return 1; }
}

# entry ALIAS LENGTH: it is a key with a chain of so many certificates.
entry() {
    tool p11.cfg -list -v -alias "$1" || fail "no entry $1"
    grep -qx 'Entry type: PrivateKeyEntry' keytool.log || fail "no key: $(cat keytool.log)"
    grep -qx "Certificate chain length: $2" keytool.log || fail "chain: $(cat keytool.log)"
}

say "lists every key that has a certificate, and asks for no signature"
expect_counted "$SERVICE" keys/sign 0 tool p11.cfg -list -v
for key in $KEYS; do
    grep -qx "Alias name: $key" keytool.log || fail "no alias $key: $(cat keytool.log)"
done
[ "$(grep -c '^Entry type: PrivateKeyEntry$' keytool.log)" -eq 4 ] || fail "$(cat keytool.log)"

say "-genkeypair $*: one key at the service, which signs its certificate"
creates=$(counter "$SERVICE" keys/create)
expect_counted "$SERVICE" keys/sign 1 tool generate.cfg -genkeypair -alias web -dname CN=web "$@"
[ $(($(counter "$SERVICE" keys/create) - creates)) -eq 1 ] || fail "not one key was made"
entry web 1

say "-certreq: signed by the service"
expect_counted "$SERVICE" keys/sign 1 tool p11.cfg -certreq -alias web -file web.csr
openssl req -in web.csr -noout -verify -subject >req.log 2>&1 || fail "$(cat req.log)"
grep -q 'subject=CN = web' req.log || fail "$(cat req.log)"

say "-importcert: the CA's chain takes the place of the self-signed certificate"
openssl x509 -req -in web.csr -CA ca.pem -CAkey ca.key -days 30 -extfile leaf.ext -out web.crt \
    2>x509.log || fail "$(cat x509.log)"
cat web.crt ca.pem >reply.pem
tool p11.cfg -importcert -noprompt -alias web -file reply.pem || fail "-importcert"
entry web 2
tool p11.cfg -exportcert -rfc -alias web -file exported.pem || fail "-exportcert"
openssl verify -CAfile ca.pem exported.pem
[ "$(openssl x509 -in exported.pem -outform DER | sha256sum)" = \
    "$(openssl x509 -in web.crt -outform DER | sha256sum)" ] || fail "another certificate"

say "-changealias: the new name stays"
tool p11.cfg -changealias -alias web -destalias 'Web server; 1%' || fail "-changealias"
entry 'Web server; 1%' 2
if tool p11.cfg -list -alias web >refused.log; then fail "the old alias is still there"; fi

say "-delete: refused without allow_delete, and nothing is lost"
if tool p11.cfg -delete -alias 'Web server; 1%' >refused.log; then fail "was not refused"; fi
grep -q CKR_ACTION_PROHIBITED refused.log || fail "$(cat refused.log)"
entry 'Web server; 1%' 2

say "-genkeypair without -providerName: Java makes the key, and the service imports it"
soft() {
    keytool -keystore NONE -storetype PKCS11 -storepass none -addprovider SunPKCS11 \
        -providerArg p11.cfg -genkeypair -alias imported -dname CN=imported "$@" \
        >keytool.log 2>&1 || { cat keytool.log; return 1; }
}
expect_counted "$SERVICE" keys/import 1 soft "$@"
entry imported 1
expect_counted "$SERVICE" keys/sign 1 tool p11.cfg -certreq -alias imported -file imported.csr
openssl req -in imported.csr -noout -verify >req.log 2>&1 || fail "$(cat req.log)"
