# A program with SunPKCS11: KeyStore, Signature, Cipher, key pairs, a TLS server. Checks.java.
. "$AKV_CLIENTS/java/java.sh"

configure_with_certificates
cat >>config.toml <<EOF

[[token]]
label = "pin"
login = "client-secret"
$(awk '/^\[\[token\]\]/ { n++ }
    n == 1 && /^(endpoint|service|authority|tenant|scope|ca_file) /' config.toml)
credential = { type = "login", client_id = "$AZURE_CLIENT_ID" }
EOF

for token in kv1 hsm1; do
    p11_cfg "$token.cfg" p11.cfg "$token"
    p11_cfg "generate-$token.cfg" p11-generate.cfg "$token"
    # The same, with pairs that stay in this process, which is what Java asks for by itself.
    sed -e '/^attributes/,/^}/d' -e 's/^name = .*/&-session/' "generate-$token.cfg" \
        >"session-$token.cfg"
    sed -i 's/^name = .*/&-generate/' "generate-$token.cfg"
done
sed -e 's/^name = .*/name = pin/' -e 's/^slotListIndex = .*/slotListIndex = 2/' kv1.cfg >pin.cfg

javac -d classes "$AKV_CLIENTS"/java/*.java
java -cp classes Checks
