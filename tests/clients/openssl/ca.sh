# Certificate authorities whose keys never leave the service: requests, certificates, a CRL.
. "$AKV_CLIENTS/openssl/engine.sh"

cat >ca.cnf <<'EOF'
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
EOF
cat >leaf.cnf <<'EOF'
basicConstraints = CA:FALSE
subjectAltName = DNS:localhost
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
EOF

# certificate KEY HASH OPTIONS…: request, and certificate from the authority; what is given as
# options goes to both signatures.
certificate() {
    leaf=$1 hash=$2
    shift 2
    signs openssl_engine req -new -engine pkcs11 -keyform engine -key "$(uri "$leaf")" "-$hash" \
        -subj "/CN=$leaf of $TOKEN" -out "$leaf.csr"
    openssl req -in "$leaf.csr" -verify -noout
    signs openssl_engine x509 -req -engine pkcs11 -CAkeyform engine -CAkey "$(uri "$authority")" \
        -CA "$authority-ca.pem" -CAcreateserial -in "$leaf.csr" -extfile leaf.cnf -days 30 \
        "-$hash" "$@" -out "$leaf-by-$authority.pem"
    openssl verify -x509_strict -CAfile "$authority-ca.pem" "$leaf-by-$authority.pem"
}

for authority in rsa2048 rsa4096 p256 p384; do
    say "$TOKEN $authority as an authority"
    signs openssl_engine req -new -engine pkcs11 -keyform engine -key "$(uri "$authority")" -sha256 \
        -subj "/CN=$authority of $TOKEN, authority" -out "$authority-ca.csr"
    signs openssl_engine x509 -req -engine pkcs11 -signkey "$(uri "$authority")" -keyform engine \
        -in "$authority-ca.csr" -extfile ca.cnf -days 365 -sha256 -out "$authority-ca.pem"
    for leaf in rsa2048 rsa4096 p256 p384; do certificate $leaf sha256; done
    certificate p384 sha384
    certificate rsa2048 sha512
done

authority=rsa4096
say "$TOKEN: certificates signed with PSS"
certificate p256 sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest
openssl x509 -in p256-by-rsa4096.pem -noout -text | grep 'Signature Algorithm: rsassaPss'

say "$TOKEN: a self-signed certificate in one step, and a CRL"
signs openssl_engine req -new -x509 -engine pkcs11 -keyform engine -key "$(uri p384)" -sha384 \
    -subj "/CN=one step" -days 30 -out one-step.pem
openssl verify -CAfile one-step.pem one-step.pem
: >index.txt
cat >crl.cnf <<'EOF'
[ca]
default_ca = this
[this]
database = index.txt
default_md = sha256
default_crl_days = 7
EOF
# The engine's configuration and the authority's in one file, as `openssl ca` wants it.
cat openssl.cnf crl.cnf >both.cnf
signs openssl_engine ca -config both.cnf -gencrl -engine pkcs11 -keyform engine \
    -keyfile "$(uri rsa4096)" -cert rsa4096-ca.pem -out rsa4096.crl
openssl crl -in rsa4096.crl -CAfile rsa4096-ca.pem -noout
