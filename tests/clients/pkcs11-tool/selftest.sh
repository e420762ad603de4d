# pkcs11-tool's own tests, its digests and its random numbers.
. "$AKV_CLIENTS/pkcs11-tool/tool.sh"

say "$TOKEN --test"
status=0
p11 --login --pin 1234 --test >tested 2>&1 || status=$?
cat tested
case $TOKEN in
hsm*)
    # It signs bytes that are no DigestInfo, which a Managed HSM has no algorithm for; nothing else
    # may go wrong.
    [ "$(grep -c 'RSA-PKCS:   ERR: C_Sign() returned CKR_DATA_INVALID' tested)" -eq 2 ]
    grep -q '^2 errors$' tested
    ;;
*)
    [ $status -eq 0 ]
    grep -q '^No errors$' tested
    ;;
esac
for done in 'all 4 digest functions seem to work' '  seems to be OK' '    RSA-PKCS: OK' '^OK$'; do
    grep -q -e "$done" tested || fail "no '$done'"
done

say "$TOKEN --test-fork"
p11 --test-fork >forked 2>&1
cat forked
grep -q 'Calling C_Initialize in forked child process' forked
if grep -qi -e error -e CKR_ forked; then fail 'the child of a fork is not served'; fi

say "$TOKEN --test-threads"
# Five threads race for C_Initialize: one of them does it. Slots and tokens are there in each. (With
# -O the threads have ended when the tool looks for them, mostly; else it sleeps for half a minute.
# By its index, for all threads of the tool write token labels into one buffer, the main thread
# too, while it compares them with a --token-label.)
status=0
pkcs11-tool --module "$AKV_MODULE" --slot-index 0 -O \
    --test-threads IN --test-threads ILGISLT0 --test-threads ILSLT1 --test-threads ILSLT0SLT1 \
    >threads 2>&1 || status=$?
cat threads
[ $status -eq 0 ]
[ "$(grep -c 'C_Initialize.*CKR_OK' threads)" -eq 1 ]
[ "$(grep -c 'C_Initialize.*CKR_CRYPTOKI_ALREADY_INITIALIZED' threads)" -eq 4 ]
[ "$(grep -c 'C_GetSlotList returned CKR_OK' threads)" -eq 8 ]
grep -q '^test_threads cleanup finished' threads
if grep 'CKR_' threads | grep -v -e CKR_OK -e CKR_CRYPTOKI_ALREADY_INITIALIZED; then
    fail 'a thread is not served'
fi

say "$TOKEN --hash"
head -c 100000 /dev/zero >data
for hash in SHA-1:sha1 SHA224:sha224 SHA256:sha256 SHA384:sha384 SHA512:sha512; do
    expect_counted "$SERVICE" requests 0 \
        p11 --hash -m ${hash%:*} --input-file data --output-file hashed
    openssl dgst -${hash#*:} -binary data | cmp - hashed
done

say "$TOKEN --generate-random"
p11 --generate-random 1000 --output-file random1
p11 --generate-random 1000 --output-file random2
[ "$(wc -c <random1)" -eq 1000 ]
if cmp -s random1 random2; then fail 'the same random bytes twice'; fi
