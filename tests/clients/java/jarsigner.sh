# jarsigner: one jar, signed with every key of the token $1 and every hash; verified by jarsigner
# and by openssl.
. "$AKV_CLIENTS/java/java.sh"

TOKEN=$1
SERVICE=$(service_of "$TOKEN")

configure_with_certificates
p11_cfg p11.cfg p11.cfg "$TOKEN"

printf 'hello\n' >hello.txt
jar --create --file a.jar hello.txt

# sign ALIAS ALGORITHM FILE
sign() {
    jarsigner -keystore NONE -storetype PKCS11 -storepass none -addprovider SunPKCS11 \
        -providerArg p11.cfg -sigalg "$2" -sigfile "$3" a.jar "$1" >jarsigner.log 2>&1 ||
        fail "$(cat jarsigner.log)"
}

signers=0
for key in $KEYS; do
    case $key in rsa*) type=RSA ;; *) type=ECDSA ;; esac
    for bits in 256 384 512; do
        say "$key SHA${bits}with$type"
        file=$(printf '%s%s' "$key" "$bits" | tr '[:lower:]' '[:upper:]' | tail -c 8)
        expect_counted "$SERVICE" keys/sign 1 sign "$key" "SHA${bits}with$type" "$file"
        signers=$((signers + 1))

        rm -rf META-INF
        jar --extract --file a.jar META-INF
        openssl cms -verify -inform DER -in "META-INF/$file".[ER][CS]* -noverify -binary \
            -content "META-INF/$file.SF" -out content 2>cms.log || fail "$(cat cms.log)"
    done
done

say "jarsigner verifies all $signers, here"
requests=$(counter "$SERVICE" requests)
jarsigner -verify -verbose:all -certs a.jar >verified || fail "$(cat verified)"
grep -qx 'jar verified.' verified || fail "$(cat verified)"
[ "$(grep -c '^- Signed by' verified)" -eq "$signers" ] || fail "$(cat verified)"
[ "$(counter "$SERVICE" requests)" -eq "$requests" ] || fail "the service was asked"

say "and sees a change"
printf 'other\n' >hello.txt
jar --update --file a.jar hello.txt
if jarsigner -verify a.jar >verified 2>&1; then fail "$(cat verified)"; fi
grep -q 'SHA-256 digest error' verified || fail "$(cat verified)"
