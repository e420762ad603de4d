# What pkcs11-tool shows of tokens, mechanisms and objects.
. "$AKV_CLIENTS/lib.sh"

pkcs11-tool --module "$AKV_MODULE" -L
expect_counted vault:kv1 keys/list 1 pkcs11-tool --module "$AKV_MODULE" -O --token-label kv1
