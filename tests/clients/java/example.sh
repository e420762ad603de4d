# examples/java/Sign.java as a reader runs it, with a key of each kind; openssl checks its output.
. "$AKV_CLIENTS/java/java.sh"

configure_with_certificates
echo data >data
for token in kv1 hsm1; do
    p11_cfg p11.cfg p11.cfg "$token"
    for key in rsa2048 p256; do
        expect_counted "$(service_of "$token")" keys/sign 1 \
            java "$AKV_ROOT/examples/java/Sign.java" p11.cfg "$key" data "$key.sig"
        export_public "$token" "$key" public.pem
        openssl dgst -sha256 -verify public.pem -signature "$key.sig" data
    done
done
refused java "$AKV_ROOT/examples/java/Sign.java" p11.cfg nobody data nobody.sig
