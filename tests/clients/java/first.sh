# SunPKCS11 as the first provider of java.security: HTTPS goes on working, server and client, and
# nothing but the handshake's signatures comes here. First.java.
. "$AKV_CLIENTS/java/java.sh"

configure_with_certificates
p11_cfg p11.cfg p11.cfg hsm1

home=$(readlink -f "$(command -v java)")
java_security="${home%/bin/java}/conf/security/java.security"
echo "security.provider.1=SunPKCS11 $PWD/p11.cfg" >first.security
sed -n 's/^security\.provider\.[0-9]*=//p' "$java_security" | grep -vx SunPKCS11 |
    awk '{ print "security.provider." NR + 1 "=" $0 }' >>first.security

javac -d classes "$AKV_CLIENTS/java/Report.java" "$AKV_CLIENTS/java/First.java"
# secp256r1: the group whose key pairs a PKCS#11 provider could be asked for.
AKV_PKCS11_LOG="trace,file:$PWD/log" java -Djava.security.properties=first.security \
    -Djdk.tls.namedGroups=secp256r1 -cp classes First

grep -q C_SignInit log || fail "no trace of the module in its log"
calls=$(grep -c ' C_' log)
say "$calls calls for three pages of 20 MB"
[ "$calls" -lt 1000 ] || fail "$(grep -o ' C_[A-Za-z]*' log | sort | uniq -c)"
for function in C_Digest C_Encrypt C_Decrypt C_GenerateKey C_GenerateRandom C_Derive; do
    if grep "$function" log; then fail "$function was called"; fi
done
