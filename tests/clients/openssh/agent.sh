# ssh-agent has keys of the token in a helper of its own, forked from it: signatures, many at once,
# and after the token was removed and added again.

. "$AKV_CLIENTS/lib.sh"

eval "$(ssh-agent -s -P "$AKV_MODULE")" >/dev/null
trap 'ssh-agent -k >/dev/null' EXIT
helpers() { pgrep -P "$SSH_AGENT_PID" | wc -l; }

# The helper asks for a PIN: any will do, the tokens ask for no login.
printf '#!/bin/sh\necho 1234\n' >askpass
chmod +x askpass
export SSH_ASKPASS="$PWD/askpass" SSH_ASKPASS_REQUIRE=force DISPLAY=none

add() { ssh-add -q -s "$AKV_MODULE" >add.log 2>&1 || fail "ssh-add -s: $(cat add.log)"; }
say "ssh-add -s"
add
ssh-add -L >keys
# Both tokens' keys, of the kinds that SSH has.
[ "$(grep -c '^ssh-rsa ' keys)" -ge 4 ] || fail "RSA keys: $(cat keys)"
[ "$(grep -c '^ecdsa-sha2-nistp256 ' keys)" -ge 2 ] || fail "EC keys: $(cat keys)"
[ "$(grep -c '^ecdsa-sha2-nistp384 ' keys)" -ge 2 ] || fail "EC keys: $(cat keys)"
[ "$(helpers)" -ge 1 ] || fail "there is no helper"

# sign NUMBER FILE: with key NUMBER of the agent; verified by ssh-keygen, which has only the public key.
sign() {
    sed -n "$1p" keys >"key-$1.pub"
    printf 'somebody %s\n' "$(cut -d ' ' -f 1,2 "key-$1.pub")" >"signers-$1"
    ssh-keygen -q -Y sign -n file -f "key-$1.pub" "$2" 2>"sign-$1.log" ||
        fail "key $1: $(cat "sign-$1.log")"
    ssh-keygen -q -Y verify -n file -f "signers-$1" -I somebody -s "$2.sig" <"$2" 2>"sign-$1.log" ||
        fail "the signature of key $1 is wrong: $(cat "sign-$1.log")"
}
# with_all: each key signs a file of its own.
count=$(wc -l <keys)
with_all() {
    signers=
    for number in $(seq "$count"); do
        echo "signed by key $number" >"file-$number"
        rm -f "file-$number.sig"
        sign "$number" "file-$number" &
        signers="$signers $!"
    done
    for one in $signers; do wait "$one" || fail "a signature"; done
}
say "$count keys sign side by side"
expect_counted vault:kv1 keys/sign $((count / 2)) \
    expect_counted managed-hsm:hsm1 keys/sign $((count / 2)) with_all

say "a challenge to each key, as a server sends it"
# ssh-add signs with SHA-1 where the key is RSA: a Managed HSM has none.
for key in key-*.pub; do
    if ! ssh-add -T "$key" 2>challenge.log; then
        grep -q '^ssh-rsa ' "$key" && grep -q "agent refused operation" challenge.log ||
            fail "$key: $(cat challenge.log)"
        echo "$key" >>refused
    fi
done
[ "$(wc -l <refused)" -eq 2 ] || fail "refused: $(cat refused)"

say "removed, and added again"
ssh-add -q -e "$AKV_MODULE"
[ "$(ssh-add -L | grep -c '^\(ssh\|ecdsa\)-')" -eq 0 ] || fail "keys are left"
add
with_all
