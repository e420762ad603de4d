# Helpers of the client scripts. `. "$AKV_CLIENTS/lib.sh"`, under `sh -eu`.

# say TEXT…: what is being checked, so that a failure's output reads as a story.
say() { printf -- '-- %s\n' "$*"; }

# fail TEXT…
fail() {
    printf 'FAILED: %s\n' "$*"
    exit 1
}

# counter SERVICE OPERATION: how often so far, e.g. `counter vault:kv1 keys/sign`.
counter() {
    curl --silent --show-error --fail --max-time 10 "$AKV_EMULATOR_CONTROL/counters" |
        jq --arg service "$1" --arg operation "$2" '.[$service][$operation] // 0'
}

# expect_counted SERVICE OPERATION COUNT COMMAND…: the command succeeds, and causes exactly so many
# of these operations at the service. The command may be another expect_counted.
expect_counted() {
    counted_before=$(counter "$1" "$2")
    # A subshell, so that an inner one has variables of its own.
    (
        shift 3
        "$@"
    )
    counted=$(($(counter "$1" "$2") - counted_before))
    [ "$counted" -eq "$3" ] || fail "$counted, not $3, of $2 at $1 by the command: $*"
}

# refused COMMAND…: must not succeed.
refused() {
    if "$@"; then fail "was not refused: $*"; fi
}

# service_of TOKEN: the counters' name of a token's service.
service_of() {
    case $1 in
    hsm*) echo "managed-hsm:$1" ;;
    *) echo "vault:$1" ;;
    esac
}
